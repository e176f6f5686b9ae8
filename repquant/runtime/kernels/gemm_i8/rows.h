#pragma once
// How rows of codes lie in memory, for every row of the family.
#include <algorithm>

#include "repquant/runtime/kernels/dot.h"
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"

namespace repquant::runtime {

// Packed rows of weights have every line rounded up to whole quads of codes; the bytes of `a`
// behind a line meet weights of zero.
inline int64_t line_length(const GemmI8Shape& shape) { return shape.k / shape.lines; }
inline int64_t line_quads(const GemmI8Shape& shape) { return (line_length(shape) + 3) / 4; }
inline int64_t quads_of(const GemmI8Shape& shape) { return shape.lines * line_quads(shape); }
inline int64_t quad_depth(const GemmI8Shape& shape) { return 4 * quads_of(shape); }

// Where code k of a row stands among the quads.
inline int64_t place_of(const GemmI8Shape& shape, int64_t k) {
  const int64_t line = line_length(shape);
  return k / line * line_quads(shape) * 4 + k % line;
}

// Goes through the rows of codes in order.
class RowCursor {
 public:
  explicit RowCursor(const GemmI8Args& args)
      : at_(args.a + args.first % args.columns * args.stride_x +
            args.first / args.columns * args.stride_y),
        columns_(args.columns),
        left_(args.columns - args.first % args.columns),
        step_(args.stride_x),
        wrap_(args.stride_y - static_cast<int64_t>(static_cast<uint64_t>(args.columns) *
                                                   static_cast<uint64_t>(args.stride_x))) {}
  const uint8_t* next() {
    const uint8_t* row = at_;
    at_ += step_;
    if (--left_ == 0) left_ = columns_, at_ += wrap_;
    return row;
  }

 private:
  const uint8_t* at_;
  int64_t columns_, left_, step_, wrap_;
};

// Line l of a row that begins at `row`.
inline const uint8_t* line_of(const GemmI8Args& args, const uint8_t* row, int64_t l) {
  return args.quad_offsets == nullptr ? row : row + args.quad_offsets[l * line_quads(args.shape)];
}

// sums[r] = sum_k (a - za); byte_sum(codes, count) adds bytes modulo 2^32.
template <class ByteSum>
inline void sum_rows(const GemmI8Args& args, int32_t* sums, ByteSum&& byte_sum) {
  RowCursor cursor(args);
  const int64_t line = line_length(args.shape), quads = line_quads(args.shape);
  const auto zero = static_cast<uint32_t>(args.shape.k) * static_cast<uint32_t>(args.za);
  for (int64_t r = 0; r < args.rows; ++r) {
    const uint8_t* row = cursor.next();
    uint32_t sum = 0;
    for (int64_t l = 0; l < args.shape.lines; ++l) {
      const int64_t at = args.quad_offsets == nullptr ? 0 : args.quad_offsets[l * quads];
      sum += byte_sum(row + at, line);
    }
    sums[r] = static_cast<int32_t>(sum - zero);
  }
}

inline constexpr int64_t kSummedRows = 512;  // whose sums are held in scratch

// Calls fn(args) for blocks of rows, with their sums where weights have zero points.
template <class Fn>
inline void for_row_blocks(const GemmI8Kernel& row, const GemmI8Args& args, Fn&& fn) {
  if (args.zw == nullptr || args.sums != nullptr) return fn(args);
  GemmI8Args piece = args;
  auto* sums = reinterpret_cast<int32_t*>(args.scratch);
  piece.sums = sums;
  for (int64_t done = 0; done < args.rows; done += kSummedRows) {
    piece.rows = std::min(kSummedRows, args.rows - done);
    row.sums(piece, sums);
    fn(piece);
    piece.first += kSummedRows;
    const int64_t out = kSummedRows * args.out_stride;
    if (piece.codes != nullptr) piece.codes += out;
    if (piece.out != nullptr) piece.out += out;
    if (piece.residual != nullptr) piece.residual += out;
  }
}

inline size_t sums_bytes() { return kSummedRows * sizeof(int32_t) + 64; }

}  // namespace repquant::runtime
