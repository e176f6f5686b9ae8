#include "repquant/core/format/elementary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace repquant {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Every exponent equally often, both signs, random mantissas, and dense linear parts.
std::vector<float> stratified(int64_t count, float limit) {
  std::mt19937 random(11);
  std::vector<float> x;
  while (static_cast<int64_t>(x.size()) < count) {
    const float mantissa = 1.0f + static_cast<float>(random() >> 9) * 0x1p-23f;
    const float wide = std::ldexp(mantissa, static_cast<int>(random() % 160) - 149);
    const float linear = static_cast<float>(random()) * 0x1p-32f * limit;
    for (const float v : {wide, linear}) x.push_back(random() % 2 == 0 ? v : -v);
  }
  return x;
}

// Distance in units of the spacing of floats at the true value.
long double ulps(float got, long double expected) {
  const long double size = std::fabs(expected);
  int exponent = 0;
  std::frexp(size, &exponent);
  const long double spacing = std::ldexp(1.0L, std::max(exponent - 24, -149));
  return std::fabs(static_cast<long double>(got) - expected) / spacing;
}

template <class Fast, class Exact>
long double worst_error(const std::vector<float>& inputs, Fast fast, Exact exact) {
  long double worst = 0.0L;
  for (const float x : inputs) {
    worst = std::max(
        worst, std::fabs(static_cast<long double>(fast(x)) - exact(static_cast<long double>(x))));
  }
  return worst;
}

void check_all(int64_t count) {
  long double worst = 0.0L;
  for (const float x : stratified(count, 110.0f)) {
    const long double expected = std::exp(static_cast<long double>(x));
    const float got = exp_f32(x);
    if (expected > static_cast<long double>(std::numeric_limits<float>::max())) {
      EXPECT_GE(got, 0x1.fffffcp127f) << x;  // within 2 ulp of the largest float, or infinite
    } else {
      worst = std::max(worst, ulps(got, expected));
    }
  }
  EXPECT_LE(worst, 2.0L);
  const std::vector<float> inputs = stratified(count, 12.0f);
  EXPECT_LE(worst_error(inputs, erf_f32, [](long double x) { return std::erf(x); }), 1.5e-7L);
  EXPECT_LE(worst_error(inputs, tanh_f32, [](long double x) { return std::tanh(x); }), 1.5e-7L);
  EXPECT_LE(
      worst_error(inputs, sigmoid_f32, [](long double x) { return 1.0L / (1.0L + std::exp(-x)); }),
      1.5e-7L);
  testing::Test::RecordProperty("exp_ulp", std::to_string(static_cast<double>(worst)));
}

TEST(Elementary, AccuracyOnStratifiedInputs) { check_all(1'000'000); }
TEST(Elementary, DISABLED_exhaustive_accuracy) { check_all(10'000'000); }

// Largest step against a neighbouring float: pieces must join without a jump.
TEST(Elementary, PiecesJoin) {
  for (const float edge : {1.0f, 4.0f}) {
    EXPECT_NEAR(erf_f32(std::nextafter(edge, 0.0f)), erf_f32(edge), 2.5e-7f);
  }
  for (const float edge : {0.625f, 20.0f}) {
    EXPECT_NEAR(tanh_f32(std::nextafter(edge, 0.0f)), tanh_f32(edge), 2.5e-7f);
  }
}

TEST(Elementary, SpecialInputs) {
  EXPECT_EQ(exp_f32(0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-0.0f), 1.0f);
  EXPECT_EQ(exp_f32(-kInf), 0.0f);
  EXPECT_EQ(exp_f32(kInf), kInf);
  EXPECT_EQ(exp_f32(1000.0f), kInf);
  EXPECT_EQ(exp_f32(-1000.0f), 0.0f);
  EXPECT_GT(exp_f32(-100.0f), 0.0f);  // subnormal
  EXPECT_EQ(erf_f32(kInf), 1.0f);
  EXPECT_EQ(erf_f32(-kInf), -1.0f);
  EXPECT_EQ(tanh_f32(kInf), 1.0f);
  EXPECT_EQ(tanh_f32(-kInf), -1.0f);
  EXPECT_EQ(sigmoid_f32(kInf), 1.0f);
  EXPECT_EQ(sigmoid_f32(-kInf), 0.0f);
  for (float (*f)(float) :
       {exp_f32, erf_f32, tanh_f32, sigmoid_f32, gelu_erf_f32, gelu_tanh_f32, silu_f32, relu_f32}) {
    EXPECT_TRUE(std::isnan(f(kNaN)));
  }
  for (float (*f)(float) : {gelu_erf_f32, gelu_tanh_f32, silu_f32, relu_f32}) {
    EXPECT_EQ(f(-kInf), 0.0f);
    EXPECT_EQ(f(-1e30f), 0.0f);
    EXPECT_EQ(f(kInf), kInf);
    EXPECT_EQ(f(1e30f), 1e30f);
    EXPECT_EQ(f(0.0f), 0.0f);
  }
}

TEST(Elementary, OddFunctionsAreOdd) {
  for (const float x : stratified(20'000, 8.0f)) {
    EXPECT_EQ(erf_f32(-x), -erf_f32(x));
    EXPECT_EQ(tanh_f32(-x), -tanh_f32(x));
  }
}

// |f| <= |x| here, so errors of the inner function grow by |x|/2 (gelu) or |x| (silu); + a few
// roundings of values up to |x| + 1.
TEST(Elementary, ActivationsAgreeWithTheirExactForms) {
  std::mt19937 random(12);
  std::uniform_real_distribution<float> uniform(-15.0f, 15.0f);
  for (int i = 0; i < 300'000; ++i) {
    const float x = uniform(random);
    const double wide = static_cast<double>(x), bound = (std::fabs(wide) + 1.0) * 3e-7;
    EXPECT_NEAR(gelu_erf_f32(x), gelu_erf_exact(wide), bound) << x;
    EXPECT_NEAR(gelu_tanh_f32(x), gelu_tanh_exact(wide), bound) << x;
    EXPECT_NEAR(silu_f32(x), silu_exact(wide), bound) << x;
    EXPECT_EQ(relu_f32(x), relu_exact(wide));
  }
}

TEST(Elementary, KnownValues) {
  EXPECT_NEAR(gelu_erf_exact(-0.7517915), -0.16997124, 1e-7);  // the minimum
  EXPECT_NEAR(sigmoid_exact(1.0), 0.7310585786300049, 1e-15);
  EXPECT_NEAR(tanh_exact(0.5), 0.46211715726000976, 1e-15);
}

}  // namespace
}  // namespace repquant
