// Hostile forms of the steps between f32 buffers, and of integer inputs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "repquant/core/plan.h"

namespace repquant {
namespace {

using ::testing::HasSubstr;

// t I64 [2] -> rows [2, 4]; x [3, 2, 4] -> leaky -> + rows -> joined with x -> largest.
Plan example() {
  Plan plan;
  plan.buffers = {{"t", DType::kI64, {2}, 64},         {"x", DType::kF32, {3, 2, 4}, 32},
                  {"rows", DType::kF32, {2, 4}, 32},   {"leaky", DType::kF32, {3, 2, 4}, 32},
                  {"sum", DType::kF32, {3, 2, 4}, 32}, {"both", DType::kF32, {3, 4, 4}, 32},
                  {"most", DType::kF32, {4}, 32},      {"real", DType::kF32, {2}, 32}};
  plan.inputs = {0, 1};
  plan.outputs = {6};
  plan.steps = {{"gather_rows", "lookup", {0}, {2}, {{"table", "lookup.table"}}, {}, {}, {}},
                {"activation", "leaky", {1}, {3}, {{"p", "leaky.p"}}, {}, {{"kind", "clip"}}, {}},
                {"binary", "sum", {3, 2}, {4}, {}, {}, {{"kind", "add"}}, {}},
                {"concat", "both", {4, 1}, {5}, {}, {{"axis", 1}}, {}, {}},
                {"reduce", "most", {5}, {6}, {}, {}, {{"kind", "max"}}, {{"axes", {0, 1}}}},
                {"cast", "real", {0}, {7}, {}, {}, {}, {}}};
  const auto tensor = [&](const std::string& name, const std::string& role, Tensor data) {
    plan.tensors[name] = {name, std::move(data), "plain", 0, {}, role};
  };
  tensor("lookup.table", "table", Tensor::of<float>({5, 4}, std::vector<float>(20, 1.0f)));
  tensor("leaky.p", "p", Tensor::of<float>({2}, {-1.0f, 1.0f}));
  return plan;
}

std::string refusal(const std::function<void(Plan&)>& change) {
  Plan plan = example();
  change(plan);
  try {
    verify_plan(plan);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
    return error.what();
  }
  return "accepted";
}

TEST(PlanFloats, ExampleIsValid) { EXPECT_NO_THROW(verify_plan(example())); }

TEST(PlanFloats, IntegerBuffers) {
  const auto refused = [](const std::function<void(Plan&)>& change, const std::string& part) {
    EXPECT_THAT(refusal(change), HasSubstr(part));
  };
  refused([](Plan& p) { p.buffers[0].bits = 32; }, "bits");
  refused([](Plan& p) { p.buffers[0].dtype = DType::kI8; }, "U8, F32, I64 or I32");
  refused([](Plan& p) { p.outputs = {0}; }, "F32 buffer as output");
  refused([](Plan& p) { p.steps[1].in = {0}; }, "\"t\" of F32");
  refused([](Plan& p) { p.steps[0].in = {1}; }, "I64 or I32");
  refused([](Plan& p) { p.steps[5].in = {1}; }, "I64 or I32");
  refused([](Plan& p) { p.buffers[7].item_shape = {3}; }, "shape [2]");
  refused([](Plan& p) { p.steps[3].ints["axis"] = 0, p.steps[3].in = {0, 0}; }, "U8 or F32");
}

TEST(PlanFloats, Operands) {
  const auto refused = [](const std::function<void(Plan&)>& change, const std::string& part) {
    EXPECT_THAT(refusal(change), HasSubstr(part));
  };
  const auto set = [](Plan& p, const char* name, Tensor data) {
    p.tensors.at(name).data = std::move(data);
  };
  refused([&](Plan& p) { set(p, "lookup.table", Tensor::of<float>({20}, std::vector<float>(20))); },
          "a table [V, C]");
  refused([](Plan& p) { p.buffers[2].item_shape = {2, 5}; }, "shape [2, 4]");
  refused([&](Plan& p) { set(p, "leaky.p", Tensor::of<float>({2}, {1.0f, -1.0f})); }, "order");
  refused([&](Plan& p) { set(p, "leaky.p", Tensor::of<float>({2}, {NAN, 1.0f})); }, "finite");
  refused([&](Plan& p) { set(p, "leaky.p", Tensor::of<float>({1}, {1.0f})); }, "\"p\"");
  refused([](Plan& p) { p.steps[1].strings["kind"] = "relu"; }, "parameters");
  refused([](Plan& p) { p.steps[1].strings["kind"] = "sinc"; }, "sinc");
  refused([](Plan& p) { p.steps[2].strings["kind"] = "mod"; }, "mod");
  refused([](Plan& p) { p.steps[2].in = {3}; }, "const");
  refused([](Plan& p) { p.buffers[4].item_shape = {3, 1, 4}; }, "shape [3, 2, 4]");
}

TEST(PlanFloats, JoinsAndReductions) {
  const auto refused = [](const std::function<void(Plan&)>& change, const std::string& part) {
    EXPECT_THAT(refusal(change), HasSubstr(part));
  };
  refused([](Plan& p) { p.steps[3].in = {4}; }, "2 to 16 inputs");
  refused([](Plan& p) { p.steps[3].in.assign(17, 1); }, "2 to 16 inputs");
  refused([](Plan& p) { p.steps[3].ints["axis"] = 3; }, "axis");
  refused([](Plan& p) { p.steps[3].ints["axis"] = -1; }, "axis");
  refused([](Plan& p) { p.steps[3].ints["axis"] = 0; }, "shape [6, 2, 4]");
  refused([](Plan& p) { p.steps[3].in = {4, 2}; }, "rank 3");
  for (const std::vector<int64_t>& axes :
       std::vector<std::vector<int64_t>>{{}, {0}, {1, 0}, {-1, 1}, {0, 3}, {0, INT64_MAX}}) {
    refused([&](Plan& p) { p.steps[4].lists["axes"] = axes; }, "axes");
  }
  refused([](Plan& p) { p.steps[4].lists["axes"] = {0, 0}; }, "[4, 4] or [1, 4, 4]");
  refused([](Plan& p) { p.steps[4].strings["kind"] = "median"; }, "median");
}

}  // namespace
}  // namespace repquant
