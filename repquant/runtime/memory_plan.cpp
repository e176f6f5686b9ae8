#include "repquant/runtime/memory_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace repquant::runtime {
namespace {

struct Group {
  uint64_t bytes = 0;  // padded
  int first = std::numeric_limits<int>::max(), last = -1;
  uint64_t offset = 0;
  bool overlaps(const Group& other) const { return first <= other.last && other.first <= last; }
};

void find_lifetimes(const Plan& plan, MemoryPlan& memory) {
  const int steps = static_cast<int>(plan.steps.size());
  for (size_t b = 0; b < plan.buffers.size(); ++b) {
    auto& place = memory.buffers[b];
    place.external = true;
    place.first = steps, place.last = -1;
    place.bytes = static_cast<uint64_t>(element_count(plan.buffers[b].item_shape)) *
                  size_of(plan.buffers[b].dtype);
  }
  for (int s = 0; s < steps; ++s) {
    for (const int b : plan.steps[s].out) {
      auto& place = memory.buffers[static_cast<size_t>(b)];
      place.external = false;
      place.first = std::min(place.first, s);
      place.last = std::max(place.last, s);
    }
    for (const int b : plan.steps[s].in) {
      auto& place = memory.buffers[static_cast<size_t>(b)];
      place.last = std::max(place.last, s);
    }
  }
  for (const int b : plan.inputs) memory.buffers[static_cast<size_t>(b)].external = true;
  for (const int b : plan.outputs) memory.buffers[static_cast<size_t>(b)].external = true;
}

// An output takes over the group of an input that ends there and has its size.
void join_in_place(const Plan& plan, const std::vector<std::vector<int>>& in_place,
                   MemoryPlan& memory) {
  for (size_t b = 0; b < memory.buffers.size(); ++b) memory.buffers[b].group = static_cast<int>(b);
  for (size_t s = 0; s < plan.steps.size(); ++s) {
    const Step& step = plan.steps[s];
    if (step.out.size() != 1) continue;
    auto& out = memory.buffers[static_cast<size_t>(step.out[0])];
    if (out.external) continue;
    for (const int input : in_place[s]) {
      const auto& in = memory.buffers[static_cast<size_t>(step.in[static_cast<size_t>(input)])];
      if (in.external || in.bytes != out.bytes || in.last != static_cast<int>(s)) continue;
      out.group = in.group;
      break;
    }
  }
}

// The smallest gap between placed groups alive at the same time that fits, else after them all.
uint64_t best_fit(const Group& group, const std::vector<const Group*>& placed) {
  std::vector<const Group*> rivals;
  for (const Group* other : placed) {
    if (other->overlaps(group)) rivals.push_back(other);
  }
  std::sort(rivals.begin(), rivals.end(),
            [](const Group* a, const Group* b) { return a->offset < b->offset; });
  uint64_t end = 0, best = 0, best_gap = std::numeric_limits<uint64_t>::max();
  for (const Group* rival : rivals) {
    if (rival->offset > end) {
      const uint64_t gap = rival->offset - end;
      if (gap >= group.bytes && gap < best_gap) best = end, best_gap = gap;
    }
    end = std::max(end, rival->offset + rival->bytes);
  }
  return best_gap == std::numeric_limits<uint64_t>::max() ? end : best;
}

}  // namespace

MemoryPlan plan_memory(const Plan& plan, const std::vector<std::vector<int>>& in_place) {
  MemoryPlan memory;
  memory.buffers.resize(plan.buffers.size());
  find_lifetimes(plan, memory);
  join_in_place(plan, in_place, memory);
  std::vector<Group> groups(plan.buffers.size());
  for (const auto& place : memory.buffers) {
    if (place.external) continue;
    Group& group = groups[static_cast<size_t>(place.group)];
    group.bytes = (place.bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
    group.first = std::min(group.first, place.first);
    group.last = std::max(group.last, place.last);
  }
  std::vector<size_t> order(groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return groups[a].bytes > groups[b].bytes; });
  std::vector<const Group*> placed;
  for (const size_t g : order) {
    if (groups[g].last < 0) continue;
    groups[g].offset = best_fit(groups[g], placed);
    memory.item_bytes = std::max(memory.item_bytes, groups[g].offset + groups[g].bytes);
    placed.push_back(&groups[g]);
  }
  for (auto& place : memory.buffers) {
    if (!place.external) place.offset = groups[static_cast<size_t>(place.group)].offset;
  }
  return memory;
}

}  // namespace repquant::runtime
