#pragma once
// The processors that control groups let this process use.
#include <limits>
#include <string>

namespace repquant {

inline constexpr int kNoQuota = std::numeric_limits<int>::max();

// Rounded up, at least 1; kNoQuota if unlimited or unreadable. The least of the group named in
// `membership` (the text of /proc/self/cgroup) and its parents, below the mount `root`: cpu.max of
// version 2, else cfs quota and period of version 1.
int cpu_quota(const std::string& membership, const std::string& root);
int cpu_quota();  // of this process

}  // namespace repquant
