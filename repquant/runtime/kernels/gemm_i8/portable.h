#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
// The portable row. Both operands are widened to int16, so that the dot products below become
// pairwise multiply-add instructions (pmaddwd, smlal) wherever the baseline has them.
#include <algorithm>
#include <cstring>

#include "repquant/core/format/uniform.h"
#include "repquant/runtime/kernels/gemm_i8/rows.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kBlockBytes = 24 << 10;  // widened rows, and a panel of columns, kept in L1

int64_t padded_depth(const GemmI8Shape& shape) { return round_up(shape.k, kDotDepth); }
int64_t padded_cols(const GemmI8Shape& shape) { return round_up(shape.n, kDotCols); }

int64_t block_rows(const GemmI8Shape& shape) {
  const int64_t fit = kBlockBytes / (padded_depth(shape) * 2);
  return std::clamp<int64_t>(fit / kDotRows * kDotRows, kDotRows, 64);
}

int64_t panel_cols(const GemmI8Shape& shape) {
  const int64_t fit = kBlockBytes / (padded_depth(shape) * 2);
  return std::clamp<int64_t>(fit / 16 * 16, 16, 64);
}

struct Scratch {
  int16_t* a;     // [block rows][padded depth]
  int32_t* sums;  // [block rows]: sum_k (a - za)
  int32_t* acc;   // [block rows][panel cols]
};

size_t scratch_bytes(const GemmI8Shape& shape) {
  const int64_t rows = block_rows(shape);
  return static_cast<size_t>(rows * padded_depth(shape) * 2 + round_up(rows * 4, 64) +
                             rows * panel_cols(shape) * 4 + 64);
}

Scratch carve(const GemmI8Shape& shape, std::byte* scratch) {
  const int64_t rows = block_rows(shape);
  std::byte* sums = scratch + rows * padded_depth(shape) * 2;
  return {reinterpret_cast<int16_t*>(scratch), reinterpret_cast<int32_t*>(sums),
          reinterpret_cast<int32_t*>(sums + round_up(rows * 4, 64))};
}

size_t packed_bytes(const GemmI8Shape& shape) {
  return static_cast<size_t>(padded_cols(shape) * padded_depth(shape) * 2);
}

void pack(const GemmI8Shape& shape, const int8_t* codes, void* packed) {
  const int64_t depth = padded_depth(shape);
  std::memset(packed, 0, packed_bytes(shape));
  auto* out = static_cast<int16_t*>(packed);
  for (int64_t n = 0; n < shape.n; ++n) {
    for (int64_t k = 0; k < shape.k; ++k) out[n * depth + k] = codes[n * shape.k + k];
  }
}

inline uint32_t byte_sum(const uint8_t* a, int64_t count) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += a[i];
  return sum;
}

[[maybe_unused]] void row_sums(const GemmI8Args& args, int32_t* sums) noexcept {
  sum_rows(args, sums, byte_sum);
}

void widen(const GemmI8Args& args, RowCursor& cursor, int64_t rows, const Scratch& scratch) {
  const int64_t k = args.shape.k, line = line_length(args.shape), depth = padded_depth(args.shape);
  for (int64_t r = 0; r < round_up(rows, kDotRows); ++r) {
    int16_t* to = scratch.a + r * depth;
    if (r >= rows) {
      std::memset(to, 0, static_cast<size_t>(depth) * 2);
      continue;
    }
    const uint8_t* row = cursor.next();
    uint32_t sum = 0;
    for (int64_t l = 0; l < args.shape.lines; ++l, to += line) {
      const uint8_t* from = line_of(args, row, l);
      for (int64_t i = 0; i < line; ++i) {
        to[i] = from[i];
        sum += from[i];
      }
    }
    for (int64_t i = k; i < depth; ++i) *to++ = 0;
    scratch.sums[r] =
        static_cast<int32_t>(sum - static_cast<uint32_t>(k) * static_cast<uint32_t>(args.za));
  }
}

// Adds the constants; unsigned, since single terms may wrap where the total does not.
void add_constants(const GemmI8Args& args, int64_t first, int64_t cols, int32_t sum,
                   int32_t* __restrict acc) {
  const int32_t* __restrict c = args.c + first;
  if (args.zw == nullptr) {
    for (int64_t n = 0; n < cols; ++n) {
      acc[n] = static_cast<int32_t>(static_cast<uint32_t>(acc[n]) + static_cast<uint32_t>(c[n]));
    }
    return;
  }
  const int32_t* __restrict zw = args.zw + first;
  const auto total = static_cast<uint32_t>(sum);
  for (int64_t n = 0; n < cols; ++n) {
    acc[n] = static_cast<int32_t>(static_cast<uint32_t>(acc[n]) + static_cast<uint32_t>(c[n]) -
                                  static_cast<uint32_t>(zw[n]) * total);
  }
}

void write_codes(const GemmI8Args& args, int64_t first, int64_t cols, const int32_t* __restrict t,
                 uint8_t* __restrict out) {
  const float* __restrict m = args.m + first;
  const int32_t zero = args.zero, lo = args.lo, hi = args.hi;
  for (int64_t n = 0; n < cols; ++n) {
    out[n] = static_cast<uint8_t>(requantize(t[n], m[n], zero, lo, hi));
  }
}

void write_floats(const GemmI8Args& args, int64_t row, int64_t first, int64_t cols,
                  const int32_t* __restrict t) {
  const float* __restrict s = args.s + first;
  const float* __restrict b = args.b + first;
  float* out = args.out + row * args.out_stride + first;
  if (args.residual == nullptr) {
    for (int64_t n = 0; n < cols; ++n) out[n] = linear_output(t[n], s[n], b[n]);
    return;
  }
  const float* residual = args.residual + row * args.out_stride + first;
  for (int64_t n = 0; n < cols; ++n) out[n] = residual[n] + linear_output(t[n], s[n], b[n]);
}

void run_panel(const GemmI8Args& args, const Scratch& scratch, int64_t row, int64_t rows,
               int64_t first, int64_t cols) {
  const int64_t depth = padded_depth(args.shape), stride = panel_cols(args.shape);
  const int16_t* weights = static_cast<const int16_t*>(args.weights) + first * depth;
  for (int64_t r = 0; r < rows; r += kDotRows) {
    for (int64_t n = 0; n < cols; n += kDotCols) {
      dot_tile(scratch.a + r * depth, weights + n * depth, depth, scratch.acc + r * stride + n,
               stride);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    int32_t* acc = scratch.acc + r * stride;
    add_constants(args, first, cols, scratch.sums[r], acc);
    if (args.codes != nullptr) {
      write_codes(args, first, cols, acc, args.codes + (row + r) * args.out_stride + first);
    } else {
      write_floats(args, row + r, first, cols, acc);
    }
  }
}

[[maybe_unused]] REPQUANT_ROW void run(const GemmI8Args& args) noexcept {
  const Scratch scratch = carve(args.shape, args.scratch);
  const int64_t block = block_rows(args.shape), panel = panel_cols(args.shape);
  RowCursor cursor(args);
  for (int64_t row = 0; row < args.rows; row += block) {
    const int64_t rows = std::min(block, args.rows - row);
    widen(args, cursor, rows, scratch);
    for (int64_t first = 0; first < args.shape.n; first += panel) {
      run_panel(args, scratch, row, rows, first, std::min(panel, args.shape.n - first));
    }
  }
}

}  // namespace
}  // namespace repquant::runtime
