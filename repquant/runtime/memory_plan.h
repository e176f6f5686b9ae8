#pragma once
// Where every buffer lives: one arena, offsets by greedy best fit over lifetimes, largest first.
// Offsets and sizes are of one item; a batch of N multiplies both by N. Plan inputs and outputs are
// the caller's memory and take no room.
#include <cstdint>
#include <vector>

#include "repquant/core/plan.h"

namespace repquant::runtime {

struct MemoryPlan {
  struct Placement {
    bool external = false;    // a plan input or output, or never used
    uint64_t offset = 0;      // a multiple of 64
    uint64_t bytes = 0;       // of one item, without padding
    int first = 0, last = 0;  // steps between which the content matters, inclusive
    int group = 0;            // buffers of one group share storage in place, one after the other
  };
  std::vector<Placement> buffers;  // by buffer index
  uint64_t item_bytes = 0;         // of the arena
};

inline constexpr uint64_t kArenaAlignment = 64;
inline constexpr uint64_t kArenaTail = 64;  // kernels may read so far past a buffer

// `in_place[s]`: the inputs of step s whose storage its output may take over.
MemoryPlan plan_memory(const Plan& plan, const std::vector<std::vector<int>>& in_place);

}  // namespace repquant::runtime
