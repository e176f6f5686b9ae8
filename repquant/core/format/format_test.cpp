#include "repquant/core/format/format.h"

#include <cmath>
#include <limits>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "repquant/core/format/log.h"
#include "repquant/core/format/power.h"
#include "repquant/core/format/twin.h"
#include "repquant/core/format/uniform.h"

namespace repquant {
namespace {

QParams params_of(int bits, Format format, float scale, int32_t zero = 0) {
  QParams p;
  p.spec.bits = bits;
  p.spec.format = std::move(format);
  p.scale = {scale};
  p.zero_point = {zero};
  return p;
}

std::vector<QParams> every_format(int bits) {
  const float high = static_cast<float>(1.0 / ((1 << (bits - 1)) - 1));
  std::vector<QParams> list = {
      params_of(bits, Uniform{}, 0.013f, (1 << bits) / 3),
      params_of(bits, Uniform{.symmetric = true}, 0.02f),
      params_of(bits, Uniform{.symmetric = true, .narrow = false}, 0.02f),
      params_of(bits, Power{.exponent = 1.0}, 0.02f),
      params_of(bits, Power{.exponent = 0.6}, 0.02f),
      params_of(bits, Twin{.gelu = false, .m = 3}, high),
      params_of(bits, Twin{.gelu = true}, 0.05f)};
  for (const double base : {1.0, 2.0, 37.0 / 11.0}) {
    for (const int table : {0, 8, 16}) {
      list.push_back(params_of(bits, Log{.base = base, .shift = 0.0, .table_bits = table}, 0.8f));
    }
  }
  QParams lower = params_of(bits, Uniform{}, 0.03f);
  lower.zero_point.clear();
  lower.lower = {-1.234f};
  list.push_back(lower);
  return list;
}

std::string name_of(const QParams& p) { return to_string(p.spec); }

std::vector<float> inputs_for(const QParams& p, int count) {
  std::mt19937 random(31);
  std::vector<float> x;
  const bool positive = std::holds_alternative<Log>(p.spec.format);
  for (int i = 0; i < count; ++i) {
    const float u = static_cast<float>(random()) * 0x1p-32f;
    const float v = i % 2 == 0 ? 4.0f * u : std::exp2(-16.0f * u);
    x.push_back(!positive && random() % 2 == 0 ? -v : v);
  }
  return x;
}

// Acceptance 1. Values are decoded per code, so a set of codes is enough to count outputs.
TEST(Format, NeverMoreThanTwoToTheBitsOutputs) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const QParams& p : every_format(bits)) {
      const Coder coder(p, 0);
      std::set<int32_t> codes;
      std::set<float> values;
      for (const float x : inputs_for(p, 60'000)) codes.insert(coder.encode(x));
      for (const int32_t q : codes) values.insert(coder.decode(q));
      EXPECT_LE(codes.size(), static_cast<size_t>(distinct_codes(p.spec))) << name_of(p);
      EXPECT_LE(distinct_codes(p.spec), 1 << bits) << name_of(p);
      EXPECT_LE(values.size(), size_t{1} << bits) << name_of(p);
      EXPECT_GE(*codes.begin(), coder.lowest());
      EXPECT_LE(*codes.rbegin(), coder.highest());
    }
  }
}

TEST(Format, CompatLogHasOneMore) {
  for (int bits = 2; bits <= 4; ++bits) {
    const QParams p =
        params_of(bits, Log{.base = 2.0, .shift = 0.0, .table_bits = 0, .compat = true}, 1.0f);
    const Coder coder(p, 0);
    std::set<float> values;
    for (const float x : inputs_for(p, 100'000)) values.insert(coder.fake_quantize(x));
    EXPECT_EQ(values.size(), (size_t{1} << bits) + 1);
    EXPECT_EQ(distinct_codes(p.spec), (1 << bits) + 1);
  }
}

// Acceptance 2.
TEST(Format, QuantizingTwiceChangesNothing) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const QParams& p : every_format(bits)) {
      const Coder coder(p, 0);
      for (const float x : inputs_for(p, 4'000)) {
        const float once = coder.fake_quantize(x);
        ASSERT_EQ(coder.fake_quantize(once), once) << name_of(p) << " at " << x;
      }
    }
  }
}

TEST(Format, IndexSelectsTheScale) {
  QParams p = params_of(4, Uniform{.symmetric = true}, 0.1f);
  p.scale = {0.1f, 10.0f};
  EXPECT_EQ(fake_quantize(0.31f, p, 0), 0.1f * 3.0f);
  EXPECT_EQ(fake_quantize(0.31f, p, 1), 0.0f);
  EXPECT_THROW(fake_quantize(0.31f, p, 2), Error);
}

TEST(Format, NaNTakesTheLowestCode) {
  const Coder coder(params_of(4, Uniform{}, 0.1f, 8), 0);
  EXPECT_EQ(coder.encode(std::nanf("")), 0);
}

// ---- logarithmic --------------------------------------------------------------------------------
// Acceptance 5.
TEST(Log, LevelsThresholdsAndErrors) {
  for (const double base : {1.0, 2.0, 37.0 / 7.0, 37.0 / 20.0}) {
    for (int bits = 2; bits <= 5; ++bits) {
      const Log log{.base = base, .shift = 0.0, .table_bits = 0};
      const int count = log_level_count(bits, log);
      const float scale = 0.77f;
      const std::vector<float> thr = log_thresholds(static_cast<double>(scale), base, count);
      for (int k = 1; k < count; ++k) {
        EXPECT_LT(thr[static_cast<size_t>(k)], thr[static_cast<size_t>(k) - 1]);
        EXPECT_LT(log_level(1.0, base, k), log_level(1.0, base, k - 1));
      }
      const Coder coder(params_of(bits, log, scale), 0);
      const double bound = std::exp2(1.0 / (2.0 * base)) - 1.0 + 1e-6;
      for (int i = 0; i <= 20'000; ++i) {
        const float x = thr.back() + (scale - thr.back()) * static_cast<float>(i) / 20'000.0f;
        const double error =
            std::fabs(static_cast<double>(coder.fake_quantize(x)) / static_cast<double>(x) - 1.0);
        EXPECT_LE(error, bound) << x;
      }
      EXPECT_EQ(coder.fake_quantize(0.0f), 0.0f);
      EXPECT_EQ(coder.fake_quantize(std::nextafter(thr.back(), 0.0f)), 0.0f);
      EXPECT_NE(coder.fake_quantize(thr.back()), 0.0f);
      EXPECT_EQ(coder.fake_quantize(5.0f), scale);
    }
  }
}

// The threshold form equals rne(-B log2(x/s)) but within an ulp of a threshold.
TEST(Log, ThresholdsEqualRoundedLogarithms) {
  std::mt19937 random(41);
  for (const double base : {1.0, 2.0}) {
    const std::vector<float> thr = log_thresholds(0.9f, base, 15);
    int differ = 0;
    for (int i = 0; i < 500'000; ++i) {
      const float x = std::exp2(-12.0f * static_cast<float>(random()) * 0x1p-32f);
      const double exact = -base * std::log2(static_cast<double>(x) / static_cast<double>(0.9f));
      const int expected = static_cast<int>(std::min(std::max(std::nearbyint(exact), 0.0), 15.0));
      if (log_code(x, thr) == expected) continue;
      ++differ;
      double distance = HUGE_VAL;
      for (const float t : thr)
        distance = std::min(distance, std::fabs(static_cast<double>(t / x) - 1.0));
      EXPECT_LE(distance, 0x1p-22);
    }
    EXPECT_LE(differ, 5);
  }
}

// Acceptance 6: the published form of base sqrt2 levels.
TEST(Log, ParityFormOfSqrt2Levels) {
  for (int q = 0; q < 31; ++q) {
    const double published = std::exp2(-((q + 1) / 2)) * (1.0 + (q % 2) * (std::sqrt(2.0) - 1.0));
    const double level = log_level(1.0, 2.0, q);
    EXPECT_LE(std::fabs(published - level), std::nextafter(level, 2.0) - level) << q;
  }
}

TEST(Log, TablesHaveTheSpecifiedEntries) {
  EXPECT_EQ(log_table8(2.0, 15),
            (std::vector<uint8_t>{255, 180, 128, 90, 64, 45, 32, 23, 16, 11, 8, 6, 4, 3, 2, 0}));
  EXPECT_EQ(log_table16(2.0, 15),
            (std::vector<uint16_t>{16384, 11585, 8192, 5793, 4096, 2896, 2048, 1448, 1024, 724, 512,
                                   362, 256, 181, 128, 0}));
  const Coder coder(params_of(4, Log{.base = 2.0, .shift = 0.0, .table_bits = 8}, 0.5f), 0);
  EXPECT_EQ(coder.decode(1), static_cast<float>(0.5 * 180 / 255));
  EXPECT_EQ(coder.decode(15), 0.0f);
}

TEST(Log, LevelCounts) {
  EXPECT_EQ(log_level_count(4, Log{}), 15);
  EXPECT_EQ(log_level_count(8, Log{}), 31);  // the shift limit of base sqrt2
  EXPECT_EQ(log_level_count(8, Log{.base = 1.0}), 255);
  EXPECT_EQ(log_level_count(4, Log{.base = 2.0, .shift = 0.0, .table_bits = 0, .compat = true}),
            16);
  EXPECT_EQ(parity_shift(15), 7);
  EXPECT_EQ(parity_shift(31), 15);
  EXPECT_EQ(parity_shift(3), 1);
}

// Acceptance 10 of the softmax page: the parity sums against dequantized operands in wide floats.
TEST(Log, ParityAndShiftSumsEqualTheRealSum) {
  std::mt19937 random(42);
  for (const int count : {3, 7, 15, 31}) {
    for (const int keys : {1, 197, 256, 257, 1024}) {
      const int parity = parity_shift(count), shift = shift_shift(count);
      ParitySums sums;
      int64_t acc = 0;
      long double expected2 = 0.0L, expected1 = 0.0L, size = 0.0L;
      for (int k = 0; k < keys; ++k) {
        const int code = static_cast<int>(random() % static_cast<unsigned>(count + 1));
        const int32_t v = static_cast<int32_t>(random() % 256) - 128;
        parity_accumulate(sums, code, v, count, parity);
        acc += shift_term(code, v, count, shift);
        if (code == count) continue;
        expected2 += v * std::exp2(-static_cast<long double>(code) / 2.0L);
        expected1 += v * std::exp2(-static_cast<long double>(code));
        size += std::fabs(static_cast<long double>(v)) *
                std::exp2(-static_cast<long double>(code) / 2.0L);
      }
      const long double wide = (static_cast<long double>(sums.even) +
                                std::sqrt(2.0L) * static_cast<long double>(sums.odd)) /
                               static_cast<long double>(int64_t{1} << parity);
      EXPECT_LE(std::fabs(wide - expected2), 1e-12L * (size + 1.0L));
      EXPECT_LE(std::fabs(parity_combine(sums.even, sums.odd, parity) - wide),
                0x1p-24L * std::fabs(wide) + 1e-12L * size);
      EXPECT_EQ(shift_combine(acc, shift), static_cast<float>(expected1));
    }
  }
}

TEST(Log, ShiftedInputsForGelu) {
  const QParams p = params_of(4, Log{.base = 2.0, .shift = 0.16997124, .table_bits = 8}, 3.0f);
  const float lowest = fake_quantize(-0.16997124f, p);
  EXPECT_EQ(lowest, -0.16997124f);
  EXPECT_NEAR(fake_quantize(2.83f, p), 3.0f - 0.16997124f, 1e-6f);
}

// ---- twin, power --------------------------------------------------------------------------------
// Acceptance 7.
TEST(Twin, GeluHasAllCodesAndTheMinimumTakesTheLowest) {
  for (int bits = 2; bits <= 8; ++bits) {
    const float step = 0.1f;
    std::set<int32_t> codes;
    for (int i = 0; i < 200'000; ++i) {
      codes.insert(
          twin_gelu_encode(-0.17f + 14.0f * static_cast<float>(i) / 200'000.0f, step, bits));
    }
    EXPECT_EQ(codes.size(), size_t{1} << bits);
    EXPECT_EQ(twin_gelu_encode(-0.16997124f, step, bits), -(1 << (bits - 1)));
  }
}

TEST(Twin, SoftmaxTakesTheNearerGrid) {
  const int bits = 4, m = 4;
  const float high = 1.0f / 7.0f, low = std::ldexp(high, -m);
  for (int i = 0; i <= 10'000; ++i) {
    const float x = static_cast<float>(i) / 10'000.0f;
    const int32_t code = twin_softmax_encode(x, high, m, bits);
    const double error = std::fabs(static_cast<double>(twin_softmax_decode(code, high, m, bits)) -
                                   static_cast<double>(x));
    double best = HUGE_VAL;
    for (int q = 0; q <= 7; ++q) {
      for (const float step : {low, high}) {
        best = std::min(best, std::fabs(static_cast<double>(step * static_cast<float>(q)) -
                                        static_cast<double>(x)));
      }
    }
    EXPECT_NEAR(error, best, 1e-7);
  }
  EXPECT_LT(twin_softmax_encode(0.0f, high, m, bits), 8);  // a tie takes the low grid
  EXPECT_EQ(twin_combine(3, 5, 4), 83);
}

// Acceptance 8.
TEST(Power, ExponentOneIsSymmetricUniform) {
  std::mt19937 random(51);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  for (int bits = 2; bits <= 8; ++bits) {
    const int32_t top = (1 << (bits - 1)) - 1;
    const float scale = symmetric_scale(3.0, bits, true);
    for (int i = 0; i < 50'000; ++i) {
      const float w = normal(random);
      ASSERT_EQ(power_encode(w, scale, 1.0, bits),
                quantize_uniform(w, inverse_scale(scale), 0, -top, top));
    }
  }
}

TEST(Power, CodesAndValuesAreMonotone) {
  for (const double a : {0.3, 0.6, 1.0, 1.2}) {
    const std::vector<float> table = power_table(0.1f, a, 4);
    ASSERT_EQ(table.size(), 16u);
    for (size_t i = 2; i < table.size(); ++i) EXPECT_GT(table[i], table[i - 1]);
    EXPECT_NEAR(table.back(), 0.7f, 1e-6f);
    for (int32_t q = -7; q <= 7; ++q)
      EXPECT_EQ(power_encode(power_decode(q, 0.1f, a, 4), 0.1f, a, 4), q);
  }
}

}  // namespace
}  // namespace repquant
