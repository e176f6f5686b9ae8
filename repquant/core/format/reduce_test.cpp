#include "repquant/core/format/reduce.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace repquant {
namespace {

std::vector<float> random_row(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.3f, 2.0f);
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = normal(random);
  return x;
}

// The definition, written the plain way.
float lanes_by_definition(const std::vector<float>& x) {
  std::vector<float> lane(16, 0.0f);
  for (size_t i = 0; i < x.size(); ++i) lane[i % 16] += x[i];
  for (const size_t width : {size_t{8}, size_t{4}, size_t{2}, size_t{1}}) {
    for (size_t l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  return lane[0];
}

TEST(Reduce, LaneSumFollowsTheDefinition) {
  for (const int64_t count : {0, 1, 3, 15, 16, 17, 31, 32, 33, 192, 197, 768, 1001}) {
    const std::vector<float> x = random_row(count, static_cast<uint32_t>(count));
    EXPECT_EQ(lane_sum(x), lanes_by_definition(x)) << count;
  }
}

TEST(Reduce, LayerNormFollowsTheDefinition) {
  for (const int64_t count : {1, 5, 192, 197}) {
    const std::vector<float> x = random_row(count, 5), g = random_row(count, 6),
                             b = random_row(count, 7);
    std::vector<float> out(x.size()), squares(x.size());
    layer_norm_row(x, g, b, 1e-6f, out);
    const float mean = lanes_by_definition(x) / static_cast<float>(count);
    for (size_t i = 0; i < x.size(); ++i) squares[i] = (x[i] - mean) * (x[i] - mean);
    const float rstd =
        1.0f / std::sqrt(lanes_by_definition(squares) / static_cast<float>(count) + 1e-6f);
    for (size_t i = 0; i < x.size(); ++i) {
      const float centred = x[i] - mean, scaled = centred * rstd, gained = scaled * g[i];
      EXPECT_EQ(out[i], gained + b[i]);
    }
    std::vector<float> in_place = x;
    layer_norm_row(in_place, g, b, 1e-6f, in_place);
    EXPECT_EQ(in_place, out);
  }
}

TEST(Reduce, LayerNormOfAConstantRowIsBeta) {
  const std::vector<float> x(192, 3.0f), g(192, 2.0f), b(192, 0.25f);
  std::vector<float> out(192);
  layer_norm_row(x, g, b, 1e-6f, out);
  for (const float v : out) EXPECT_EQ(v, 0.25f);
}

TEST(Reduce, RmsNormFollowsTheDefinition) {
  const std::vector<float> x = random_row(288, 8), g = random_row(288, 9), b = random_row(288, 10);
  std::vector<float> out(288), shifted(288), squares(288);
  rms_norm_row(x, g, {}, 1e-5f, out);
  rms_norm_row(x, g, b, 1e-5f, shifted);
  for (size_t i = 0; i < x.size(); ++i) squares[i] = x[i] * x[i];
  const float rstd = 1.0f / std::sqrt(lanes_by_definition(squares) / 288.0f + 1e-5f);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(out[i], (x[i] * rstd) * g[i]);
    EXPECT_EQ(shifted[i], out[i] + b[i]);
  }
}

TEST(Reduce, SoftmaxRowsAreProbabilities) {
  for (const int64_t count : {1, 2, 16, 197, 1000}) {
    const std::vector<float> x = random_row(count, 20);
    std::vector<float> p(x.size()), e(x.size());
    softmax_row(x, p);
    const float sum = softmax_exp_row(x, e);
    double total = 0.0, exact = 0.0;
    const double most = static_cast<double>(row_max(x));
    for (const float v : x) exact += std::exp(static_cast<double>(v) - most);
    for (size_t i = 0; i < x.size(); ++i) {
      total += static_cast<double>(p[i]);
      EXPECT_EQ(p[i], e[i] / sum);
      // exp 2 ulp, the difference 1 (of up to 20), the sum and the division a few: 1e-5 relative is
      // ample.
      const double expected = std::exp(static_cast<double>(x[i]) - most) / exact;
      EXPECT_NEAR(p[i], expected, 1e-5 * expected);
    }
    EXPECT_NEAR(total, 1.0, 1e-5);
  }
}

TEST(Reduce, RowMaxFindsEveryPosition) {
  for (size_t at = 0; at < 37; ++at) {
    std::vector<float> x(37, -5.0f);
    x[at] = 2.0f;
    EXPECT_EQ(row_max(x), 2.0f) << at;
  }
  EXPECT_EQ(row_max(std::vector<float>{std::nanf(""), -3.0f, std::nanf("")}), -3.0f);
}

TEST(Reduce, AMaskedRowIsZeros) {
  const std::vector<float> x(20, -std::numeric_limits<float>::infinity());
  std::vector<float> p(20, 9.0f);
  softmax_row(x, p);
  for (const float v : p) EXPECT_EQ(v, 0.0f);
  std::vector<float> partly = x;
  partly[7] = -1e30f;
  softmax_row(partly, p);
  EXPECT_EQ(p[7], 1.0f);
  EXPECT_EQ(p[8], 0.0f);
}

TEST(Reduce, RowCodes) {
  EXPECT_EQ(row_code(1.0f), 255);
  EXPECT_EQ(row_code(0.0f), 0);
  EXPECT_EQ(row_code(0.5f), 128);  // 127.5 is a tie
}

}  // namespace
}  // namespace repquant
