#include "repquant/core/format/uniform.h"

#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace repquant {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(Uniform, TiesGoToEven) {
  for (const auto& [x, q] : {std::pair{0.5f, 0}, {1.5f, 2}, {2.5f, 2}, {3.5f, 4}, {254.5f, 254}}) {
    EXPECT_EQ(quantize_uniform(x, 1.0f, 0, 0, 255), q) << x;
  }
  EXPECT_EQ(quantize_uniform(-0.5f, 1.0f, 0, -128, 127), 0);
  EXPECT_EQ(quantize_uniform(-1.5f, 1.0f, 0, -128, 127), -2);
}

TEST(Uniform, NonFiniteInputsHaveCodes) {
  EXPECT_EQ(quantize_uniform(kNaN, 1.0f, 7, 0, 15), 0);
  EXPECT_EQ(quantize_uniform(kInf, 1.0f, 7, 0, 15), 15);
  EXPECT_EQ(quantize_uniform(-kInf, 1.0f, 7, 0, 15), 0);
  EXPECT_EQ(clampf(kNaN, -2.0f, 3.0f), -2.0f);
}

TEST(Uniform, RoundHalfEvenEqualsNearbyint) {
  std::mt19937 random(1);
  for (int i = 0; i < 2'000'000; ++i) {
    const float v = std::ldexp(static_cast<float>(static_cast<int32_t>(random())),
                               -static_cast<int>(random() % 40));
    if (std::fabs(v) >= 2147483647.0f) continue;
    EXPECT_EQ(round_half_even(v), static_cast<int32_t>(std::nearbyint(v))) << v;
    if (std::fabs(v) <= 4194304.0f) {
      EXPECT_EQ(round_small(v), std::nearbyint(v)) << v;
    }
    EXPECT_EQ(round_half_even(static_cast<double>(v)), std::nearbyint(static_cast<double>(v)));
  }
  for (const float v : {4194304.5f, 4194305.5f, 8388607.5f, 8388609.0f, -4194305.5f, -8388607.5f}) {
    EXPECT_EQ(round_half_even(v), static_cast<int32_t>(std::nearbyint(v))) << v;
  }
}

TEST(Uniform, ErrorInsideTheRangeIsHalfAStep) {
  std::mt19937 random(2);
  std::uniform_real_distribution<double> bound(0.1, 8.0);
  for (int trial = 0; trial < 2000; ++trial) {
    const int bits = 2 + static_cast<int>(random() % 7);
    const double lo = -bound(random), hi = bound(random);
    const UniformParams p = uniform_from_range(lo, hi, bits, true);
    const float inv = inverse_scale(p.scale);
    const int top = (1 << bits) - 1;
    ASSERT_GE(p.zero, 0);
    ASSERT_LE(p.zero, top);
    // The grid's own ends: rounding of z moves them by at most half a step against [lo, hi].
    const float first = dequantize_uniform(0, p.scale, p.zero),
                last = dequantize_uniform(top, p.scale, p.zero);
    std::uniform_real_distribution<float> inside(first, last);
    for (int i = 0; i < 100; ++i) {
      const float x = inside(random);
      const int32_t q = quantize_uniform(x, inv, p.zero, 0, top);
      const double error =
          std::fabs(static_cast<double>(p.scale) * (q - p.zero) - static_cast<double>(x));
      EXPECT_LE(error, 0.5 * static_cast<double>(p.scale) * (1.0 + 1e-6 * top));
    }
  }
}

TEST(Uniform, ZeroIsExactWithIncludeZero) {
  for (const double lo : {-3.0, 0.0, 0.7}) {
    const UniformParams p = uniform_from_range(lo, 2.0, 4, true);
    const int32_t q = quantize_uniform(0.0f, inverse_scale(p.scale), p.zero, 0, 15);
    EXPECT_EQ(dequantize_uniform(q, p.scale, p.zero), 0.0f);
  }
}

TEST(Uniform, ZeroPointMayLeaveTheCodesWithoutIncludeZero) {
  const UniformParams p = uniform_from_range(5.0, 6.5, 4, false);
  EXPECT_EQ(p.scale, 0.1f);
  EXPECT_EQ(p.zero, -50);
  EXPECT_EQ(quantize_uniform(5.0f, inverse_scale(p.scale), p.zero, 0, 15), 0);
  EXPECT_EQ(quantize_uniform(6.5f, inverse_scale(p.scale), p.zero, 0, 15), 15);
}

TEST(Uniform, DegenerateRangesKeepASafeScale) {
  for (const double x : {0.0, 1e-30, 1000.0, -1000.0, 3e7}) {
    for (const bool include_zero : {true, false}) {
      const UniformParams p = uniform_from_range(x, x, 8, include_zero);
      EXPECT_GE(p.scale, 1e-8f * 0.999f);
      EXPECT_LE(std::abs(p.zero), kMaxZeroPoint);
      const int32_t q =
          quantize_uniform(static_cast<float>(x), inverse_scale(p.scale), p.zero, 0, 255);
      EXPECT_NEAR(dequantize_uniform(q, p.scale, p.zero), x, 0.5001 * static_cast<double>(p.scale));
    }
  }
  EXPECT_GT(symmetric_scale(0.0, 4, true), 0.0f);
}

TEST(Uniform, BadBoundsAreRefused) {
  EXPECT_THROW(uniform_from_range(0.0, std::nan(""), 4, true), Error);
  EXPECT_THROW(uniform_from_range(1.0, 0.0, 4, true), Error);
  EXPECT_THROW(uniform_from_range(0.0, HUGE_VAL, 4, true), Error);
  EXPECT_THROW(symmetric_scale(std::nan(""), 4, true), Error);
}

// Acceptance 4: a full-range signed code is the unsigned code minus 2^(b-1).
TEST(Uniform, CentredAsymmetricEqualsFullRangeSymmetric) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  for (int bits = 2; bits <= 8; ++bits) {
    const CodeRange s = code_range(bits, Uniform{.symmetric = true, .narrow = false});
    const CodeRange u = code_range(bits, Uniform{});
    EXPECT_EQ(s.count(), u.count());
    const int32_t zero = 1 << (bits - 1);
    for (int i = 0; i < 20000; ++i) {
      const float x = normal(random), inv = inverse_scale(0.37f);
      const int32_t a = quantize_uniform(x, inv, zero, u.lo, u.hi),
                    b = quantize_uniform(x, inv, 0, s.lo, s.hi);
      EXPECT_EQ(a - zero, b);
      EXPECT_EQ(dequantize_uniform(a, 0.37f, zero), dequantize_uniform(b, 0.37f, 0));
    }
  }
  EXPECT_EQ(code_range(4, Uniform{.symmetric = true}), (CodeRange{-7, 7}));
}

// Acceptance 13, for the law itself: an independent evaluation with nearbyint and wide integers.
TEST(Uniform, RequantizationEqualsTheDefinition) {
  std::mt19937 random(4);
  for (int i = 0; i < 10'000'000; ++i) {
    const int32_t t = static_cast<int32_t>(random()) >> (random() % 31);
    const float m = std::ldexp(1.0f + static_cast<float>(random() % 8388608u) / 8388608.0f,
                               -static_cast<int>(random() % 34));
    const int32_t zero = static_cast<int32_t>(random() % 256), hi = (1 << (2 + random() % 7)) - 1;
    const float v = std::fmin(std::fmax(static_cast<float>(t) * m, static_cast<float>(-zero)),
                              static_cast<float>(hi - zero));
    const int32_t expected = static_cast<int32_t>(std::nearbyint(v)) + zero;
    ASSERT_EQ(requantize(t, m, zero, 0, hi), expected) << t << " * " << m;
    ASSERT_EQ(requantize(static_cast<int64_t>(t), m, zero, 0, hi), expected);
  }
  for (int32_t t = -513; t <= 513; t += 2) {  // exact ties
    const int32_t even = static_cast<int32_t>(std::nearbyint(t / 2.0));
    EXPECT_EQ(requantize(t, 0.5f, 0, -300, 300), even);
  }
}

TEST(Uniform, FusedMultiplyAddEqualsFmaf) {
  std::mt19937 random(5);
  const auto number = [&](int spread) {
    const float mantissa = static_cast<float>(static_cast<int32_t>(random()));
    return std::ldexp(mantissa,
                      static_cast<int>(random() % static_cast<unsigned>(spread)) - spread / 2);
  };
  for (int i = 0; i < 2'000'000; ++i) {
    const int spread = i % 2 == 0 ? 20 : 150;
    const float a = number(spread), b = number(spread);
    // Half the addends nearly cancel the product, where double rounding would show.
    const float c = i % 3 == 0
                        ? -a * b * (1.0f + std::ldexp(1.0f, -static_cast<int>(random() % 30)))
                        : number(spread);
    const float expected = std::fmaf(a, b, c), got = fused_multiply_add(a, b, c);
    ASSERT_EQ(std::bit_cast<uint32_t>(expected), std::bit_cast<uint32_t>(got))
        << a << " " << b << " " << c;
  }
  // A tie between two floats that only the exact product breaks.
  const float a = 1.0f + 0x1p-12f, c = 0x1p-60f;
  for (const float sign : {1.0f, -1.0f}) {
    EXPECT_EQ(fused_multiply_add(a, a, sign * c), std::fmaf(a, a, sign * c));
    EXPECT_EQ(fused_multiply_add(1.0f + 0x1p-23f, 0.5f, sign * 0x1p-80f),
              std::fmaf(1.0f + 0x1p-23f, 0.5f, sign * 0x1p-80f));
  }
  EXPECT_TRUE(std::isnan(fused_multiply_add(kInf, 0.0f, 1.0f)));
  EXPECT_EQ(fused_multiply_add(3e38f, 3e38f, 0.0f), kInf);
  EXPECT_EQ(fused_multiply_add(1.0f, 2.0f, -kInf), -kInf);
}

TEST(Uniform, LinearOutputIsRoundedOnce) {
  std::mt19937 random(6);
  const auto fraction = [&] { return 1.0f + static_cast<float>(random() % 8388608u) / 8388608.0f; };
  int fused = 0;
  for (int i = 0; i < 100'000; ++i) {
    const int32_t t = static_cast<int32_t>(random()) >> (random() % 24);
    const float s = 1e-4f * fraction(), b = -static_cast<float>(t) * s * fraction();
    const float separate = static_cast<float>(t) * s;
    ASSERT_EQ(linear_output(t, s, b), std::fmaf(static_cast<float>(t), s, b)) << t << " " << s;
    fused += linear_output(t, s, b) != separate + b ? 1 : 0;
  }
  EXPECT_GT(fused, 10'000);  // that two roundings would be seen
}

}  // namespace
}  // namespace repquant
