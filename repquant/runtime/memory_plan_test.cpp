#include <gtest/gtest.h>

#include "repquant/runtime/memory_plan.h"
#include "repquant/runtime/program.h"
#include "repquant/runtime/testing.h"

namespace repquant {
namespace {

using runtime::MemoryPlan;

bool alive_together(const MemoryPlan::Placement& a, const MemoryPlan::Placement& b) {
  return a.first <= b.last && b.first <= a.last;
}

bool share_bytes(const MemoryPlan::Placement& a, const MemoryPlan::Placement& b) {
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

void expect_sound(const MemoryPlan& memory) {
  for (size_t a = 0; a < memory.buffers.size(); ++a) {
    const auto& x = memory.buffers[a];
    if (x.external) continue;
    EXPECT_EQ(x.offset % 64, 0u);
    EXPECT_LE(x.offset + x.bytes, memory.item_bytes);
    for (size_t b = a + 1; b < memory.buffers.size(); ++b) {
      const auto& y = memory.buffers[b];
      if (y.external || !alive_together(x, y) || !share_bytes(x, y)) continue;
      // Only one taking over from the other, in the step where the other ends.
      EXPECT_EQ(x.group, y.group);
      EXPECT_TRUE(x.last == y.first || y.last == x.first);
      EXPECT_EQ(x.offset, y.offset);
    }
  }
}

// Random chains and diamonds of elementwise steps over buffers of mixed sizes.
Plan random_plan(uint64_t seed) {
  testing::PlanBuilder b(seed);
  std::vector<int> live{b.input("x", {4, 8})};
  for (int s = 0; s < 40; ++s) {
    const int from =
        live[static_cast<size_t>(b.random.integer(0, static_cast<int64_t>(live.size()) - 1))];
    const Shape shape{b.random.integer(1, 9), b.random.integer(1, 40)};
    std::vector<int> in{from};
    if (b.random.integer(0, 2) == 0) in.push_back(live.back());
    live.push_back(b.step("any", in, b.random.integer(0, 1) ? DType::kF32 : DType::kU8,
                          b.random.integer(0, 1) ? b.shape(from) : shape, 8));
  }
  b.plan.outputs = {live.back()};
  return b.plan;
}

TEST(MemoryPlan, BuffersAliveTogetherDoNotOverlap) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Plan plan = random_plan(seed);
    std::vector<std::vector<int>> in_place;
    for (const Step& step : plan.steps) {
      std::vector<int> all(step.in.size());
      for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
      in_place.push_back(seed % 2 == 0 ? all : std::vector<int>{});
    }
    expect_sound(runtime::plan_memory(plan, in_place));
  }
}

TEST(MemoryPlan, ReusesMemory) {
  const auto program =
      Program::from_plan(testing::make_vit({16, 4, 32, 2, 64, 10, 8, 4, false}, 3));
  expect_sound(program->memory());
  uint64_t sum = 0, largest = 0;
  for (const auto& place : program->memory().buffers) {
    if (place.external) continue;
    sum += place.bytes;
    largest = std::max(largest, place.bytes);
  }
  // A block never holds more than the residual stream, one hidden layer and its codes.
  EXPECT_LT(program->arena_bytes(1), 4 * largest);
  EXPECT_LT(program->arena_bytes(1), sum / 8);
  EXPECT_EQ(program->arena_bytes(5), 5 * program->arena_bytes(1));
}

}  // namespace
}  // namespace repquant
