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

#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/kernels/elementwise/elementwise.h"
#include "repquant/runtime/kernels/thresholds.h"
#include "repquant/runtime/steps/steps.h"

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
      row->quantize_log(args);
      ASSERT_EQ(want, got) << row->name << " " << levels;
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

}  // namespace
}  // namespace repquant::runtime
