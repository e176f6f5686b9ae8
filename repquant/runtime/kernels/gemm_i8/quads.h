#pragma once
// For rows whose products take four codes at a time: rows of other lengths are copied, with zeros
// behind.
#include <algorithm>
#include <cstring>

#include "repquant/runtime/kernels/dot.h"
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"

namespace repquant::runtime {

inline constexpr int64_t kCopiedRows = 48;

inline int64_t quad_depth(const GemmI8Shape& shape) { return round_up(shape.k, 4); }

inline size_t quad_scratch_bytes(const GemmI8Shape& shape) {
  const int64_t rows = shape.k % 4 == 0 ? 0 : kCopiedRows;
  return static_cast<size_t>(rows * quad_depth(shape) + 64);
}

// Calls fn(codes, stride, row, rows) for blocks of rows of whole quads.
template <class Fn> void for_quad_rows(const GemmI8Args& args, Fn&& fn) {
  const int64_t depth = quad_depth(args.shape), k = args.shape.k;
  if (k == depth) return fn(args.a, k, int64_t{0}, args.rows);
  auto* copy = reinterpret_cast<uint8_t*>(args.scratch);
  for (int64_t row = 0; row < args.rows; row += kCopiedRows) {
    const int64_t rows = std::min(kCopiedRows, args.rows - row);
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(copy + r * depth, args.a + (row + r) * k, static_cast<size_t>(k));
      std::memset(copy + r * depth + k, 0, static_cast<size_t>(depth - k));
    }
    fn(copy, depth, row, rows);
  }
}

}  // namespace repquant::runtime
