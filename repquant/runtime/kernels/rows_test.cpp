// Rows of the kernel tables against the scalar row, one by one: operands of every byte value, odd
// sizes, extremes, and float functions over stratified bit patterns.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "repquant/core/format/log.h"
#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/kernels/elementwise/elementwise.h"
#include "repquant/runtime/kernels/target.h"
#include "repquant/runtime/kernels/thresholds.h"
#include "repquant/runtime/steps/steps.h"

#if defined(__x86_64__)
#include "repquant/runtime/kernels/log_coder512.h"
#endif

namespace repquant::runtime {
namespace {

// All exponents and signs, mantissas at random, special values: 2^20 floats.
std::vector<float> stratified() {
  std::mt19937 random(11);
  std::vector<float> values;
  for (uint32_t high = 0; high < 512; ++high) {
    for (int i = 0; i < 2048; ++i)
      values.push_back(
          std::bit_cast<float>(high << 23 | static_cast<uint32_t>(random() & 0x7fffff)));
  }
  return values;
}

// The bits, but for the payload of NaN.
bool same_values(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]) &&
        !(a[i] != a[i] && b[i] != b[i]))
      return false;
  }
  return true;
}

TEST(Rows, Activation) {
  const std::vector<float> x = stratified();
  std::vector<float> ordinary(1 << 18), want(x.size()), got(x.size());
  std::mt19937 random(3);
  for (float& v : ordinary) v = std::normal_distribution<float>(0.0f, 3.0f)(random);
  for (const ActivationKernel* row : activation_kernels()) {
    if (!isa_available(row->isa)) continue;
    for (const std::vector<float>* values :
         std::array<const std::vector<float>*, 2>{&x, &ordinary}) {
      want.resize(values->size());
      got.resize(values->size());
      for (const FunctionLaw& law : kFunctionLaws) {
        const FunctionKind kind = *function_kind(law.name);
        const auto count = static_cast<int64_t>(values->size()) - 5;  // a tail
        activation_scalar.run({kind, values->data(), want.data(), count, 0.25f, 0.5f});
        row->run({kind, values->data(), got.data(), count, 0.25f, 0.5f});
        ASSERT_TRUE(same_values(want, got)) << row->name << " " << law.name;
      }
    }
  }
}

TEST(Rows, Elementwise) {
  const std::vector<float> x = stratified();
  std::vector<float> thresholds;
  std::vector<uint8_t> want(x.size()), got(x.size()), table(256);
  for (size_t i = 0; i < 256; ++i) table[i] = static_cast<uint8_t>(i * 77 + 13);
  for (const ElementwiseKernel* row : elementwise_kernels()) {
    if (!isa_available(row->isa)) continue;
    got = want;
    for (const int levels : {1, 7, 15, 16, 30, 31, 32, 200, 255}) {
      thresholds.clear();
      const float steps = levels < 32 ? 3.0f : 18.5f;  // an octave
      for (int i = 0; i < levels; ++i)
        thresholds.push_back(4.0f * std::exp2(-static_cast<float>(i) / steps));
      QuantizeLogArgs args{x.data(), want.data(),       static_cast<int64_t>(x.size()) - 3,
                           0.17f,    thresholds.data(), levels};
      count_thresholds<true>(args.x, args.count, args.shift, args.thresholds, args.levels,
                             args.codes);
      args.codes = got.data();
      for (const LogFit& fit : {LogFit{}, fit_log(thresholds.data(), levels)}) {
        args.fit = fit;
        row->quantize_log(args);
        ASSERT_EQ(want, got) << row->name << " " << levels << " " << fit.usable;
      }
    }
    QuantizeArgs args{x.data(), want.data(), static_cast<int64_t>(x.size()) - 3, 11.0f, 100,
                      2,        250};
    elementwise_scalar.quantize(args);
    args.codes = got.data();
    row->quantize(args);
    ASSERT_EQ(want, got) << row->name;
    TableArgs look{want.data(), got.data(), static_cast<int64_t>(x.size()), table.data()};
    row->table(look);
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], table[want[i]]) << row->name;
  }
}

#if defined(__x86_64__)
REPQUANT_AVX512VNNI bool row_coder_fits(const std::vector<float>& thresholds) {
  return RowLogCoder(thresholds.data(), static_cast<int64_t>(thresholds.size())).fits();
}

// Numbers of the x whose code differs from that of the rounded quotient x / s.
REPQUANT_AVX512VNNI int differences(const std::vector<float>& thresholds, float s,
                                    const std::vector<float>& x) {
  RowLogCoder coder(thresholds.data(), static_cast<int64_t>(thresholds.size()));
  coder.row(s);
  int wrong = 0;
  for (size_t first = 0; first + 16 <= x.size(); first += 16) {
    alignas(64) std::array<int32_t, 16> codes;
    _mm512_store_si512(codes.data(), coder(_mm512_loadu_ps(x.data() + first)));
    for (size_t i = 0; i < 16; ++i) {
      int want = 0;
      for (const float t : thresholds) want += x[first + i] / s < t;
      wrong += (codes[i] & 0xffff) != want;
    }
  }
  return wrong;
}

TEST(Rows, RowLogCoderGivesTheCodesOfQuotients) {
  if (!isa_available(Isa::kAvx512Vnni)) GTEST_SKIP() << "no AVX512-VNNI here";
  std::mt19937 random(5);
  std::uniform_real_distribution<float> mantissa(1.0f, 2.0f);
  int coders = 0;
  for (int round = 0; round < 300; ++round) {
    const int count = 1 + static_cast<int>(random() % 15);
    const double base = round % 3 == 0 ? 1.0 : round % 3 == 1 ? 2.0 : 37.0 / (20 + random() % 18);
    std::vector<float> thresholds =
        log_thresholds(round % 5 == 0 ? 1.0 : mantissa(random) / 2.0, base, count);
    if (!row_coder_fits(thresholds)) continue;
    ++coders;
    // Sums of softmax rows: powers of two and odd mantissas, where ties are met and missed.
    const float s = round % 4 == 0   ? 64.0f
                    : round % 4 == 1 ? 3.0f
                                     : 1 + 40 * (mantissa(random) - 1);
    std::vector<float> x{0.0f, 1.0f, 1e-45f, 1e-38f, 1e-30f, std::nanf(""), 0.5f, 1e-20f};
    for (const float t : thresholds) {
      const uint32_t bits = std::bit_cast<uint32_t>(t * s);
      for (uint32_t step = 0; step < 17; ++step) x.push_back(std::bit_cast<float>(bits + step - 8));
    }
    for (int i = 0; i < 200; ++i)
      x.push_back(std::ldexp(mantissa(random), -static_cast<int>(random() % 24)));
    x.resize((x.size() + 15) / 16 * 16, 0.25f);
    ASSERT_EQ(differences(thresholds, s, x), 0) << "count " << count << " base " << base;
  }
  EXPECT_GE(coders, 200);
  EXPECT_TRUE(row_coder_fits(log_thresholds(0.9, 2.0, 15)));  // log sqrt 2 of four bits
  EXPECT_FALSE(row_coder_fits(log_thresholds(0.9, 2.0, 31)));
  EXPECT_FALSE(row_coder_fits(log_thresholds(0.9, 8.0, 15)));  // two thresholds a bin
  EXPECT_FALSE(row_coder_fits({0.5f, 1e-33f}));
}
#endif

// Every value from well above the thresholds to well below them that lies within 40 steps of one,
// and all thresholds themselves, for lines of every slope.
TEST(Rows, LogCodesBesideThresholds) {
  for (const auto& [slope, levels] :
       {std::pair{0.5, 15}, {1.0, 3}, {2.0, 31}, {5.3, 200}, {18.5, 255}, {31.9, 255}}) {
    std::vector<float> thresholds, x;
    for (int k = 0; k < levels; ++k)
      thresholds.push_back(static_cast<float>(0.7 * std::exp2(-(k + 0.5) / slope)));
    for (const float t : thresholds) {
      for (int32_t step = -40; step <= 40; ++step)
        x.push_back(std::bit_cast<float>(std::bit_cast<int32_t>(t) + step));
    }
    const LogFit fit = fit_log(thresholds.data(), levels);
    ASSERT_TRUE(fit.usable) << slope;
    std::vector<uint8_t> want(x.size()), got(x.size());
    QuantizeLogArgs args{x.data(), want.data(),       static_cast<int64_t>(x.size()),
                         0.0f,     thresholds.data(), levels};
    count_thresholds<true>(args.x, args.count, 0.0f, args.thresholds, args.levels, args.codes);
    args.fit = fit;
    args.codes = got.data();
    for (const ElementwiseKernel* row : elementwise_kernels()) {
      if (!isa_available(row->isa)) continue;
      row->quantize_log(args);
      ASSERT_EQ(want, got) << row->name << " " << slope;
    }
  }
}

// What is no line of log2 is counted.
TEST(Rows, OtherThresholdsHaveNoFit) {
  const float bent[] = {1.0f, 0.5f, 0.26f}, steep[] = {1.0f, 0.99f, 0.98f},
              rising[] = {0.25f, 0.5f, 1.0f}, tiny[] = {1e-30f, 1e-36f, 1e-42f},
              negative[] = {1.0f, -1.0f}, level[] = {1.0f, 1.0f},
              lost[] = {1.0f, std::numeric_limits<float>::quiet_NaN(), 0.25f};
  for (const float* three : {bent, steep, rising, tiny, lost})
    EXPECT_FALSE(fit_log(three, 3).usable) << three[1];
  EXPECT_FALSE(fit_log(negative, 2).usable);
  EXPECT_FALSE(fit_log(level, 2).usable);
  EXPECT_FALSE(fit_log(bent, 1).usable);
}

}  // namespace
}  // namespace repquant::runtime
