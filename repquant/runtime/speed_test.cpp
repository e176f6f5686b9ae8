// Prints the time of a DeiT-Tiny shaped plan; asserts nothing about it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "repquant/runtime/session.h"
#include "repquant/runtime/testing.h"

namespace repquant {
namespace {

// The sum over steps of each step's best round: what an idle machine needs.
TEST(Speed, DeitTinyOneThread) {
  const auto program =
      Program::from_plan(testing::make_vit({224, 16, 192, 3, 768, 1000, 12, 4, false}, 1));
  Session session(program);
  testing::Random random(7);
  const std::vector<float> image = random.reals(3 * 224 * 224, -2, 2);
  std::vector<float> logits(1000);
  const Shape in{1, 3, 224, 224}, out{1, 1, 1000};
  const ConstTensorView x{image.data(), DType::kF32, in};
  const TensorView y{logits.data(), DType::kF32, out};
  std::vector<StepTime> times, best;
  for (int round = 0; round < 8; ++round) {
    session.run_profiled({&x, 1}, {&y, 1}, times);
    if (best.empty()) best = times;
    for (size_t s = 0; s < times.size(); ++s) {
      best[s].nanoseconds = std::min(best[s].nanoseconds, times[s].nanoseconds);
    }
  }
  std::map<std::string, double> by_op;
  double total = 0;
  for (const StepTime& t : best) {
    const double ms = 1e-6 * static_cast<double>(t.nanoseconds);
    by_op[program->plan().steps[static_cast<size_t>(t.step)].op] += ms;
    total += ms;
  }
  std::printf("deit-tiny shapes, one thread: %.1f ms an image, arena %.2f MB\n", total,
              1e-6 * static_cast<double>(program->arena_bytes(1)));
  for (const auto& [op, ms] : by_op) std::printf("  %-13s %6.2f ms\n", op.c_str(), ms);
  EXPECT_EQ(times.size(), program->plan().steps.size());
}

}  // namespace
}  // namespace repquant
