#pragma once
// For tests of product kernels: random operands, what the contract makes of them, and what a row
// does.
#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "repquant/core/format/uniform.h"
#include "repquant/runtime/kernels/gemm_i4/gemm_i4.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime::testing {

struct Case {
  int64_t rows = 1, n = 1, k = 1;
  int code_bits = 8, weight_bits = 8;
  bool asymmetric = false, extremes = false, windows = false;
};

inline constexpr int64_t kBehind = 64;  // bytes that may be read behind the rows

// One product with its operands; rows are dense, or windows of lines that overlap.
struct Gemm {
  Case form;
  GemmI8Shape shape;
  int64_t columns = std::numeric_limits<int64_t>::max(), stride_x = 0, stride_y = 0, first = 0;
  int64_t line_stride = 0, out_stride = 0;
  std::vector<uint8_t> a;
  std::vector<int8_t> w;
  std::vector<int32_t> c, zw, offsets;
  std::vector<float> m, b, residual;
  static constexpr int32_t kZa = 7;

  const uint8_t* code(int64_t row, int64_t k) const {
    const int64_t at = first + row, line = shape.k / shape.lines;
    return a.data() + at / columns * stride_y + at % columns * stride_x + k / line * line_stride +
           k % line;
  }
};

inline Gemm make(std::mt19937& random, const Case& form) {
  const auto pick = [&](int64_t low, int64_t high) {
    return static_cast<int32_t>(std::uniform_int_distribution<int64_t>(low, high)(random));
  };
  Gemm g;
  g.form = form;
  g.shape = {.n = form.n, .k = form.k};
  g.out_stride = form.n + pick(0, 3);
  g.stride_x = form.k;
  if (form.windows) {
    g.shape.lines = pick(1, 4);
    const int64_t line = std::max<int64_t>(1, form.k / g.shape.lines);
    g.shape.k = line * g.shape.lines;
    g.columns = pick(1, 12);
    g.stride_x = pick(1, 9);
    g.stride_y = pick(1, 300);
    g.line_stride = pick(0, 200);
    g.first = pick(0, 30);
    std::vector<int64_t> lines;
    for (int64_t l = 0; l < g.shape.lines; ++l) lines.push_back(l * g.line_stride);
    g.offsets.resize(static_cast<size_t>(quad_count(g.shape)));
    write_quad_offsets(g.shape, lines.data(), g.offsets.data());
  }
  const uint8_t* last = g.code(form.rows - 1, g.shape.k - 1);
  const uint8_t* other = g.code(std::max<int64_t>(0, form.rows - 1 - g.columns), g.shape.k - 1);
  int64_t size = std::max(last - g.a.data(), other - g.a.data()) + 1;
  for (int64_t r = 0; r < form.rows; ++r)
    size = std::max<int64_t>(size, g.code(r, g.shape.k - 1) - g.a.data() + 1);
  const int32_t top = (1 << form.code_bits) - 1, half = 1 << (form.weight_bits - 1);
  for (int64_t i = 0; i < size; ++i)
    g.a.push_back(static_cast<uint8_t>(form.extremes ? top * pick(0, 1) : pick(0, top)));
  for (int64_t i = 0; i < kBehind; ++i) g.a.push_back(255);
  for (int64_t i = 0; i < g.shape.n * g.shape.k; ++i)
    g.w.push_back(static_cast<int8_t>(form.extremes ? (2 * half - 1) * pick(0, 1) - half
                                                    : pick(-half, half - 1)));
  for (int64_t i = 0; i < form.n; ++i) {
    g.c.push_back(pick(-100000, 100000));
    g.zw.push_back(pick(-20, 20));
    g.m.push_back(1e-4f * static_cast<float>(pick(1, 400)));
    g.b.push_back(0.1f * static_cast<float>(pick(-100, 100)));
  }
  for (int64_t i = 0; i < form.rows * g.out_stride; ++i)
    g.residual.push_back(0.37f * static_cast<float>(pick(-100, 100)));
  return g;
}

struct Answer {
  std::vector<uint8_t> codes;
  std::vector<float> floats, added;
  bool operator==(const Answer& other) const {
    const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
      return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * 4) == 0;
    };
    return codes == other.codes && same(floats, other.floats) && same(added, other.added);
  }
};

inline Answer empty(const Gemm& g) {
  const auto size = static_cast<size_t>(g.form.rows * g.out_stride + 64);
  Answer answer{std::vector<uint8_t>(size, 0xcd), std::vector<float>(size, -7.0f), g.residual};
  return answer;
}

inline Answer by_the_contract(const Gemm& g) {
  Answer answer = empty(g);
  for (int64_t r = 0; r < g.form.rows; ++r) {
    for (int64_t n = 0; n < g.shape.n; ++n) {
      int64_t t = g.c[static_cast<size_t>(n)], sum = 0;
      for (int64_t k = 0; k < g.shape.k; ++k) {
        t += int64_t{*g.code(r, k)} * g.w[static_cast<size_t>(n * g.shape.k + k)];
        sum += *g.code(r, k) - Gemm::kZa;
      }
      if (g.form.asymmetric) t -= sum * g.zw[static_cast<size_t>(n)];
      const auto at = static_cast<size_t>(r * g.out_stride + n), column = static_cast<size_t>(n);
      const auto exact = static_cast<int32_t>(t);
      answer.codes[at] = static_cast<uint8_t>(requantize(exact, g.m[column], 3, 0, 200));
      answer.floats[at] = linear_output(exact, g.m[column], g.b[column]);
      answer.added[at] = g.residual[at] + answer.floats[at];
    }
  }
  return answer;
}

using Run = std::function<void(const GemmI8Args&)>;

inline Answer answer(const Gemm& g, const void* weights, size_t scratch_bytes, const Run& run) {
  AlignedBytes scratch(scratch_bytes + 64);
  GemmI8Args args;
  args.shape = g.shape;
  args.rows = g.form.rows;
  args.a = g.a.data();
  args.first = g.first, args.columns = g.columns;
  args.stride_x = g.stride_x, args.stride_y = g.stride_y;
  args.quad_offsets = g.offsets.empty() ? nullptr : g.offsets.data();
  args.weights = weights;
  args.pair_bound = pair_bound(g.shape, g.w.data(), (1 << g.form.code_bits) - 1);
  args.c = g.c.data();
  args.zw = g.form.asymmetric ? g.zw.data() : nullptr;
  args.za = Gemm::kZa;
  args.out_stride = g.out_stride;
  args.scratch = scratch.data();
  Answer result = empty(g);
  GemmI8Args codes = args;
  codes.codes = result.codes.data();
  codes.m = g.m.data();
  codes.zero = 3, codes.lo = 0, codes.hi = 200;
  run(codes);
  args.s = g.m.data();
  args.b = g.b.data();
  args.out = result.floats.data();
  run(args);
  args.out = result.added.data();
  args.residual = result.added.data();
  run(args);
  return result;
}

inline Answer answer(const GemmI8Kernel& row, const Gemm& g) {
  AlignedBytes packed(row.packed_bytes(g.shape) + 64);
  row.pack(g.shape, g.w.data(), packed.data());
  return answer(g, packed.data(), row.scratch_bytes(g.shape), row.run);
}

inline Answer answer(const GemmI4Kernel& row, const Gemm& g) {
  const int bits = g.form.weight_bits;
  AlignedBytes packed(row.packed_bytes(g.shape, bits) + 64);
  row.pack(g.shape, bits, g.w.data(), packed.data());
  return answer(g, packed.data(), row.scratch_bytes(g.shape),
                [&](const GemmI8Args& args) { row.run(args, bits); });
}

inline std::vector<Case> cases(std::mt19937& random, int weight_bits, int count) {
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  std::vector<Case> all;
  for (int i = 0; i < count; ++i) {
    Case form{pick(1, 70), pick(1, 140), i < 2 ? 2049 + i : pick(1, 300)};
    if (i % 7 == 3) form.rows = pick(1, 4);
    if (i % 11 == 5) form.rows = 600, form.n = pick(1, 20), form.k = pick(1, 40);
    form.code_bits = i % 3 == 1 ? 4 : 8;
    form.weight_bits = weight_bits;
    form.asymmetric = i % 2 == 0;
    form.extremes = i % 5 == 4;
    form.windows = i % 4 >= 2;
    all.push_back(form);
  }
  return all;
}

}  // namespace repquant::runtime::testing
