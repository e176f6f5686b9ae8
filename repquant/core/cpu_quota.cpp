#include "repquant/core/cpu_quota.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace repquant {
namespace {

int rounded_up(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return kNoQuota;
  const long long count = quota / period + (quota % period != 0 ? 1 : 0);
  return static_cast<int>(std::clamp<long long>(count, 1, kNoQuota));
}

// "max 100000" and missing files are no limit.
int quota_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  long long quota = -1, period = -1;
  return file >> quota >> period ? rounded_up(quota, period) : kNoQuota;
}

int quota_v1(const std::string& folder) {
  std::ifstream first(folder + "/cpu.cfs_quota_us"), second(folder + "/cpu.cfs_period_us");
  long long quota = -1, period = -1;
  return first >> quota && second >> period ? rounded_up(quota, period) : kNoQuota;
}

// The group and every parent; `path` begins with '/' or is empty. Inside a container the path may
// name a place outside the mount: the mount's own root is always read.
int least(const std::string& root, std::string path, int (*read)(const std::string&)) {
  int quota = read(root);
  while (path.size() > 1) {
    quota = std::min(quota, read(root + path));
    path.resize(path.rfind('/'));
  }
  return quota;
}

}  // namespace

int cpu_quota(const std::string& membership, const std::string& root) {
  int quota = std::min(quota_v2(root), quota_v1(root + "/cpu"));
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    std::string controllers(1, ',');
    controllers.append(line, first + 1, second - first - 1).push_back(',');
    const std::string path = line.substr(second + 1);
    if (!path.starts_with('/')) continue;
    if (controllers == ",,") quota = std::min(quota, least(root, path, quota_v2));
    if (controllers.find(",cpu,") != std::string::npos)
      quota = std::min(quota, least(root + "/cpu", path, quota_v1));
  }
  return quota;
}

int cpu_quota() {
  std::ifstream file("/proc/self/cgroup");
  std::ostringstream text;
  text << file.rdbuf();
  return cpu_quota(text.str(), "/sys/fs/cgroup");
}

}  // namespace repquant
