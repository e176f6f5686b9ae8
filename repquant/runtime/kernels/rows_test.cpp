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
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/thresholds.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

struct Gemm {
  GemmI8Shape shape;
  int64_t rows = 0;
  std::vector<uint8_t> a;
  std::vector<int8_t> w;
  std::vector<int32_t> c, zw;
  std::vector<float> m, b, residual;
};

Gemm random_gemm(std::mt19937& random, GemmI8Shape shape, int64_t rows, bool extremes) {
  Gemm g{shape, rows, {}, {}, {}, {}, {}, {}, {}};
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int64_t i = 0; i < rows * shape.k; ++i)
    g.a.push_back(static_cast<uint8_t>(extremes ? 255 * pick(0, 1) : pick(0, 255)));
  for (int64_t i = 0; i < shape.n * shape.k; ++i)
    g.w.push_back(static_cast<int8_t>(extremes ? 255 * pick(0, 1) - 128 : pick(-128, 127)));
  for (int64_t i = 0; i < shape.n; ++i) {
    g.c.push_back(pick(-100000, 100000));
    g.zw.push_back(pick(-20, 20));
    g.m.push_back(1e-4f * static_cast<float>(pick(1, 400)));
    g.b.push_back(0.1f * static_cast<float>(pick(-100, 100)));
  }
  for (int64_t i = 0; i < rows * shape.n; ++i)
    g.residual.push_back(0.37f * static_cast<float>(pick(-100, 100)));
  return g;
}

struct Answer {
  std::vector<uint8_t> codes;
  std::vector<float> floats, added;
};

Answer answer(const GemmI8Kernel& row, const Gemm& g, bool asymmetric) {
  AlignedBytes packed(row.packed_bytes(g.shape) + 64), scratch(row.scratch_bytes(g.shape) + 64);
  row.pack(g.shape, g.w.data(), packed.data());
  GemmI8Args args;
  args.shape = g.shape;
  args.rows = g.rows;
  args.a = g.a.data();
  args.weights = packed.data();
  args.c = g.c.data();
  args.zw = asymmetric ? g.zw.data() : nullptr;
  args.za = 7;
  args.scratch = scratch.data();
  const auto size = static_cast<size_t>(g.rows * g.shape.n);
  Answer result{std::vector<uint8_t>(size + 1, 0xcd), std::vector<float>(size + 1, -7.0f), {}};
  result.added = g.residual;
  GemmI8Args codes = args;
  codes.codes = result.codes.data();
  codes.m = g.m.data();
  codes.zero = 3, codes.lo = 0, codes.hi = 200;
  row.run(codes);
  args.s = g.m.data();
  args.b = g.b.data();
  args.out = result.floats.data();
  row.run(args);
  args.out = result.added.data();
  args.residual = result.added.data();
  row.run(args);
  return result;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

TEST(Rows, GemmI8) {
  std::mt19937 random(5);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  int rows_seen = 0;
  for (const GemmI8Kernel* row : gemm_i8_kernels()) {
    if (!isa_available(row->isa) || row->isa == Isa::kScalar) continue;
    ++rows_seen;
    for (int round = 0; round < 60; ++round) {
      const GemmI8Shape shape{pick(1, 130), round < 4 ? 4096 + round : pick(1, 300)};
      const Gemm g = random_gemm(random, shape, pick(1, 70), round % 5 == 4);
      const Answer want = answer(gemm_i8_scalar, g, round % 2 == 0),
                   got = answer(*row, g, round % 2 == 0);
      ASSERT_EQ(want.codes, got.codes) << row->name << " " << shape.n << " " << shape.k;
      ASSERT_TRUE(same_bits(want.floats, got.floats)) << row->name;
      ASSERT_TRUE(same_bits(want.added, got.added)) << row->name;
    }
  }
  std::printf("gemm_i8: %d rows beside scalar\n", rows_seen);
}

// Every pair of bytes: row i of `a` holds code i, column j the weight j - 128.
TEST(Rows, GemmI8EveryPairOfBytes) {
  Gemm g{{256, 1},
         256,
         {},
         {},
         std::vector<int32_t>(256),
         std::vector<int32_t>(256),
         std::vector<float>(256, 1.0f),
         std::vector<float>(256),
         std::vector<float>(256 * 256)};
  for (int i = 0; i < 256; ++i) {
    g.a.push_back(static_cast<uint8_t>(i));
    g.w.push_back(static_cast<int8_t>(i - 128));
  }
  for (const GemmI8Kernel* row : gemm_i8_kernels()) {
    if (!isa_available(row->isa)) continue;
    const Answer got = answer(*row, g, false);
    for (int i = 0; i < 256; ++i) {
      for (int j = 0; j < 256; ++j)
        ASSERT_EQ(got.floats[static_cast<size_t>(i * 256 + j)], static_cast<float>(i * (j - 128)))
            << row->name;
    }
  }
}

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

TEST(Isa, NamesWhatIsMissing) {
  EXPECT_EQ(available_isas().back(), "scalar");
  for (const IsaSupport& support : isa_support()) {
    EXPECT_EQ(support.available, support.missing.empty()) << isa_name(support.isa);
    if (support.available) {
      EXPECT_EQ(parse_isa(isa_name(support.isa)), support.isa);
      continue;
    }
    try {
      (void)parse_isa(isa_name(support.isa));
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(error.hint().find(support.missing), std::string::npos) << error.hint();
    }
  }
}

}  // namespace
}  // namespace repquant::runtime
