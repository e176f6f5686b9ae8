#include "repquant/report/plan_histograms.h"

#include <numeric>

#include <gtest/gtest.h>

#include "repquant/core/example_plan.h"

namespace repquant {
namespace {

int64_t sum(const nlohmann::json& counts) {
  int64_t total = 0;
  for (const auto& count : counts) total += count.get<int64_t>();
  return total;
}

TEST(WeightCodes, EveryWeightIsCountedOnce) {
  const Plan plan = example_plan();
  const nlohmann::json all = weight_code_histograms(plan);
  size_t linears = 0;
  for (const Step& step : plan.steps) {
    if (step.op != "linear") continue;
    const nlohmann::json& row = all.at(linears++);
    const PlanTensor& tensor = plan.tensors.at(step.tensors.at("w"));
    EXPECT_EQ(row["layer"], step.name);
    EXPECT_EQ(row["bits"], tensor.bits);
    EXPECT_EQ(row["codes"].size(), size_t{1} << tensor.bits);
    EXPECT_EQ(row["low"], -(1 << (tensor.bits - 1)));
    EXPECT_EQ(sum(row["codes"]), element_count(tensor.logical_shape));
  }
  EXPECT_EQ(all.size(), linears);
  ASSERT_GT(linears, 3u);
}

TEST(WeightCodes, CountsStandAtTheirCode) {
  Plan plan = example_plan();
  for (Step& step : plan.steps) {
    if (step.op != "linear") continue;
    PlanTensor& tensor = plan.tensors.at(step.tensors.at("w"));
    const int64_t n = tensor.logical_shape[0], k = tensor.logical_shape[1];
    std::vector<int8_t> codes(static_cast<size_t>(n * k), -1);
    codes[0] = 1;
    tensor.data = pack_weights(codes, n, k, tensor.bits);
  }
  for (const nlohmann::json& row : weight_code_histograms(plan)) {
    const size_t zero = row["codes"].size() / 2;
    EXPECT_EQ(row["codes"][zero + 1], 1);
    EXPECT_EQ(row["codes"][zero - 1], sum(row["codes"]) - 1);
  }
}

const Step& attention_of(const Plan& plan) {
  for (const Step& step : plan.steps) {
    if (step.op == "attention") return step;
  }
  throw std::runtime_error("no attention");
}

// Feeds the outputs that the attention reads, then the attention itself.
void feed(SoftmaxCodeCounter& counter, const Plan& plan, const Tensor& q, const Tensor& k) {
  const Step& attention = attention_of(plan);
  for (const Step& step : plan.steps) {
    if (step.out[0] == attention.in[0]) counter.observe(step, 0, q.view());
    if (step.out[0] == attention.in[1]) counter.observe(step, 0, k.view());
    if (&step == &attention) counter.observe(step, 0, q.view());
  }
}

TEST(SoftmaxCodes, EqualScoresGiveOneCode) {
  const Plan plan = example_plan();
  const Step& attention = attention_of(plan);
  SoftmaxCodeCounter counter(plan);
  EXPECT_TRUE(counter.histograms().empty());
  const Tensor codes =
      Tensor::of<uint8_t>({2, 5, 8}, std::vector<uint8_t>(80, 100));  // zero: q = k = 0
  feed(counter, plan, codes, codes);
  const nlohmann::json all = counter.histograms();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0]["layer"], attention.name);
  EXPECT_EQ(all[0]["kind"], "log");
  // p = 1/5 for all of 2 items x 2 heads x 5 x 5; thresholds 0.9 2^(-(k + 1/2)/2): 0.2 lies below
  // those of k = 0 .. 3 (0.9 2^-1.75 = 0.268), not below that of k = 4 (0.189).
  EXPECT_EQ(sum(all[0]["codes"]), 100);
  EXPECT_EQ(all[0]["codes"][4], 100);
  EXPECT_EQ(all[0]["codes"].size(), 16u);
}

TEST(SoftmaxCodes, APeakGetsCodeZero) {
  const Plan plan = example_plan();
  SoftmaxCodeCounter counter(plan);
  std::vector<uint8_t> keys(40, 100);
  for (size_t i = 0; i < 8; ++i) keys[i] = 255;  // only key 0 scores, by 4 155^2 m = 96 or more
  const Tensor q = Tensor::of<uint8_t>({5, 8}, std::vector<uint8_t>(40, 255));
  feed(counter, plan, q, Tensor::of<uint8_t>({5, 8}, keys));
  const nlohmann::json codes = counter.histograms()[0]["codes"];
  EXPECT_EQ(codes[0], 10);   // one a query and head
  EXPECT_EQ(codes[15], 40);  // the others are zero
}

}  // namespace
}  // namespace repquant
