#include "repquant/core/format/functions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

namespace repquant {
namespace {

// Distance in units of the last place of the exact result.
double ulps(float got, double want) {
  const auto nearest = static_cast<float>(want);
  const double unit = static_cast<double>(std::nextafter(std::fabs(nearest), INFINITY)) -
                      static_cast<double>(std::fabs(nearest));
  return std::fabs(static_cast<double>(got) - want) / unit;
}

TEST(Functions, LogOfEveryExponent) {
  std::mt19937 random(1);
  for (int round = 0; round < 2'000'000; ++round) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(random() % 0x7f800000u));
    if (x == 0.0f) continue;
    const double want = std::log(static_cast<double>(x));
    const float got = log_f32(x);
    // Around 1 the result is a polynomial of x - 1, which is exact.
    ASSERT_TRUE(ulps(got, want) <= 2.0 || std::fabs(static_cast<double>(got) - want) < 1e-7) << x;
  }
  EXPECT_EQ(log_f32(1.0f), 0.0f);
  EXPECT_EQ(log_f32(0.0f), -INFINITY);
  EXPECT_EQ(log_f32(-0.0f), -INFINITY);
  EXPECT_EQ(log_f32(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(log_f32(-1.0f)));
  EXPECT_TRUE(std::isnan(log_f32(-INFINITY)));
  EXPECT_TRUE(std::isnan(log_f32(NAN)));
}

TEST(Functions, SineAndCosine) {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> wide(-8192.0f, 8192.0f), narrow(-4.0f, 4.0f);
  double worst = 0;
  for (int round = 0; round < 1'000'000; ++round) {
    const float x = round % 2 == 0 ? wide(random) : narrow(random);
    const auto exact = static_cast<double>(x);
    worst = std::max({worst, std::fabs(static_cast<double>(sin_f32(x)) - std::sin(exact)),
                      std::fabs(static_cast<double>(cos_f32(x)) - std::cos(exact))});
  }
  EXPECT_LT(worst, 2e-7);
  EXPECT_EQ(cos_f32(0.0f), 1.0f);
  EXPECT_EQ(sin_f32(-0.0f), 0.0f);
  EXPECT_EQ(sin_f32(INFINITY), sin_f32(65536.0f));
  EXPECT_EQ(cos_f32(-1e30f), cos_f32(-65536.0f));
  EXPECT_TRUE(std::isnan(sin_f32(NAN)) && std::isnan(cos_f32(NAN)));
}

TEST(Functions, SoftplusAndMish) {
  for (float x = -80.0f; x < 80.0f; x += 0.01f) {
    const double exact = std::log1p(std::exp(static_cast<double>(x)));
    // 1 + exp rounds to 2^-24, then two functions of 2e-7.
    EXPECT_NEAR(static_cast<double>(softplus_f32(x)), exact, 3e-7 * std::max(1.0, exact)) << x;
    const double mish = static_cast<double>(x) * std::tanh(exact);
    EXPECT_NEAR(static_cast<double>(mish_f32(x)), mish, 1e-6 * std::max(1.0, std::fabs(mish) + 5))
        << x;
  }
}

TEST(Functions, BoundsAndNan) {
  EXPECT_EQ(clip_f32(-3.0f, -1.0f, 2.0f), -1.0f);
  EXPECT_EQ(clip_f32(3.0f, -1.0f, 2.0f), 2.0f);
  EXPECT_EQ(hard_sigmoid_f32(-9.0f, 0.2f, 0.5f), 0.0f);
  EXPECT_EQ(hard_sigmoid_f32(9.0f, 0.2f, 0.5f), 1.0f);
  EXPECT_EQ(hard_swish_f32(3.0f), 3.0f);
  EXPECT_EQ(hard_swish_f32(-3.0f), 0.0f);
  EXPECT_EQ(leaky_relu_f32(-2.0f, 0.05f), -0.1f);
  EXPECT_TRUE(std::isnan(max_f32(NAN, 1.0f)) && std::isnan(max_f32(1.0f, NAN)));
  EXPECT_TRUE(std::isnan(min_f32(NAN, 1.0f)) && std::isnan(min_f32(1.0f, NAN)));
  for (const FunctionLaw& law : kFunctionLaws) {
    if (law.name != "relu" && law.name != "relu6") {
      EXPECT_TRUE(std::isnan(law.value(NAN, 0.25f, 0.5f))) << law.name;
    }
    EXPECT_EQ(function_law(*function_kind(law.name)).name, law.name);
  }
  EXPECT_FALSE(function_kind("gelu").has_value());
}

}  // namespace
}  // namespace repquant
