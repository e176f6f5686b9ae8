// Artifacts that lie, with every checksum right: refused at open, or run as the simulator says.
#include <gtest/gtest.h>

#include "repquant/core/artifact.h"
#include "repquant/evaluate/testing_mutations.h"
#include "repquant/runtime/session.h"

namespace repquant {
namespace {

using testing::Outcome;
using testing::Parts;

TEST(HostileArtifact, UnchangedPartsAreExact) {
  for (const Plan& plan : testing::plans_to_mutate()) {
    Parts parts(plan);
    for (uint64_t seed = 0; seed < 24; ++seed) {
      std::string detail;
      EXPECT_EQ(testing::open_and_compare(parts, seed, detail), Outcome::kExact) << detail;
    }
  }
}

// One to three changes to a valid artifact.
TEST(HostileArtifact, ChangesAreRefusedOrExact) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr uint64_t kRounds = 600;
#else
  constexpr uint64_t kRounds = 3000;
#endif
  const std::vector<Plan> plans = testing::plans_to_mutate();
  int refused = 0, exact = 0;
  for (uint64_t seed = 0; seed < kRounds; ++seed) {
    Parts parts(plans[seed % plans.size()]);
    testing::SeededChoices choose(seed);
    const int64_t changes = 1 + choose.integer(0, 5) / 4;
    for (int64_t i = 0; i < changes; ++i) testing::mutate(parts, choose);
    std::string detail;
    const Outcome outcome = testing::open_and_compare(parts, seed, detail);
    ASSERT_NE(outcome, Outcome::kDiffers) << "seed " << seed << ": " << detail;
    (outcome == Outcome::kRefused ? refused : exact) += 1;
  }
  EXPECT_GT(refused, static_cast<int>(kRounds / 5));
  EXPECT_GT(exact, static_cast<int>(kRounds / 10));
}

// The message of the refusal; empty when the plan is accepted.
std::string refusal(const Plan& plan) {
  try {
    (void)Program::from_plan(plan);
  } catch (const Error& error) {
    EXPECT_NE(error.code(), ErrorCode::kInternal) << error.what();
    return error.what();
  }
  return "";
}

Step& step_of(Plan& plan, const std::string& op) {
  for (Step& step : plan.steps) {
    if (step.op == op) return step;
  }
  throw std::runtime_error("no such step");
}

// Every multiplier of every step, replaced by what is no scale.
TEST(HostileArtifact, ScalesThatAreNone) {
  using Limits = std::numeric_limits<float>;
  int tried = 0;
  for (const Plan& original : testing::plans_to_mutate()) {
    for (const auto& [name, tensor] : original.tensors) {
      const std::string& role = tensor.role;
      if (role != "m" && role != "s" && role != "inv" && role != "mo" && role != "pinv") continue;
      for (const float value : {0.0f, -0.0f, -1.0f, Limits::infinity(), -Limits::infinity(),
                                Limits::quiet_NaN(), Limits::denorm_min(), Limits::max()}) {
        Plan plan = original;
        Tensor& data = plan.tensors.at(name).data;
        static_cast<float*>(data.data())[data.size() - 1] = value;
        EXPECT_NE(refusal(plan), "") << name << " " << value;
        ++tried;
      }
    }
  }
  EXPECT_GT(tried, 200);
}

TEST(HostileArtifact, AccumulatorsThatCouldOverflow) {
  const Plan original = testing::make_windows(7);
  for (const char* op : {"linear", "conv", "depthwise"}) {
    Plan plan = original;
    const Step& step = step_of(plan, op);
    auto* c = static_cast<int32_t*>(plan.tensors.at(step.tensors.at("c")).data.data());
    c[0] = INT32_MAX;
    EXPECT_NE(refusal(plan), "") << op;
    c[0] = INT32_MIN;
    EXPECT_NE(refusal(plan), "") << op;
  }
  Plan plan = original;
  step_of(plan, "linear").ints["za"] = INT32_MAX;
  EXPECT_NE(refusal(plan), "");
}

TEST(HostileArtifact, BuffersThatOverlapInTimeAreRefused) {
  const Plan original = example_plan();
  Plan twice = original;  // two writers of one buffer
  twice.steps[2].out = twice.steps[1].out;
  EXPECT_NE(refusal(twice), "");
  Plan own = original;  // a step that reads what it writes
  own.steps[1].in = own.steps[1].out;
  EXPECT_NE(refusal(own), "");
  Plan input = original;  // a step that writes over an input
  input.steps[1].out = {input.inputs[0]};
  EXPECT_NE(refusal(input), "");
  Plan early = original;  // read before it is written
  std::swap(early.steps[3], early.steps[4]);
  EXPECT_NE(refusal(early), "");
}

TEST(HostileArtifact, ShapesThatLieAreRefused) {
  for (const Plan& original : testing::plans_to_mutate()) {
    for (size_t b = 0; b < original.buffers.size(); ++b) {
      for (size_t axis = 0; axis < original.buffers[b].item_shape.size(); ++axis) {
        for (const int64_t change : {int64_t{-1}, int64_t{1}, int64_t{1} << 31, INT64_MAX / 2}) {
          Plan plan = original;
          plan.buffers[b].item_shape[axis] += change;
          EXPECT_NE(refusal(plan), "") << plan.buffers[b].name << " axis " << axis;
        }
      }
    }
  }
}

}  // namespace
}  // namespace repquant
