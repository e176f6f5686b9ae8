#pragma once
// gemm_i8: rows of u8 codes times signed weight codes, int32 exact, with the fused epilogues of the
// `linear` and `conv` steps (core/plan.h):
//   t[r][n] = sum_k a[r][k] w[n][k] + c[n] - zw[n] * sum_k (a[r][k] - za)
//   codes   = rne(clampf(float(t) * m[n], lo - zero, hi - zero)) + zero
//   f32     = fmaf(float(t), s[n], b[n]), after a residual: residual + that
// Kernels check nothing, allocate nothing and know nothing of threads. The caller has proven that
// no int32 sum can overflow.
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

struct GemmI8Shape {
  int64_t n = 0, k = 0;
  int64_t lines = 1;  // of k / lines neighbouring codes, which a row of codes consists of
};

struct GemmI8Args {
  GemmI8Shape shape;
  int64_t rows = 0;
  // Row r of codes begins at a + y * stride_y + x * stride_x where first + r = y * columns + x. 64
  // bytes behind the last row can be read.
  const uint8_t* a = nullptr;
  int64_t first = 0;
  int64_t columns = std::numeric_limits<int64_t>::max(), stride_x = 0, stride_y = 0;
  // Where every four codes lie behind the row's begin, each line rounded up to whole fours:
  // write_quad_offsets. nullptr: the row is one line.
  const int32_t* quad_offsets = nullptr;
  const void* weights = nullptr;  // as written by the row's `pack`, 64-byte aligned
  int64_t pair_bound = std::numeric_limits<int64_t>::max();  // as pair_bound() has it
  const int32_t* c = nullptr;                                // [n]
  const int32_t* zw = nullptr;                               // [n], or nullptr: all zero
  int32_t za = 0;
  const int32_t* sums = nullptr;  // [rows]: sum_k (a - za), or nullptr: found where needed
  int64_t out_stride = 0;         // elements between rows of codes, out and residual
  // Codes out (codes != nullptr) ...
  uint8_t* codes = nullptr;  // [rows][n]
  const float* m = nullptr;  // [n]
  int32_t zero = 0, lo = 0, hi = 255;
  // ... or f32 out; `residual` may be nullptr and may be `out` itself.
  float* out = nullptr;             // [rows][n]
  const float* s = nullptr;         // [n]
  const float* b = nullptr;         // [n]
  const float* residual = nullptr;  // [rows][n]
  std::byte* scratch = nullptr;     // 64-byte aligned, scratch_bytes long
};

struct GemmI8Kernel {
  std::string_view name;
  Isa isa;
  int64_t tile_rows;  // rows are best given in multiples of it
  // Columns that may be packed and multiplied alone without loss of time.
  int64_t panel;
  int64_t weight_bytes;  // of a packed weight
  size_t (*packed_bytes)(const GemmI8Shape&);
  void (*pack)(const GemmI8Shape&, const int8_t* codes, void* packed);  // codes [n][k]
  size_t (*scratch_bytes)(const GemmI8Shape&);
  void (*sums)(const GemmI8Args&, int32_t* sums) noexcept;  // as GemmI8Args::sums
  void (*run)(const GemmI8Args&) noexcept;
};

// int32 numbers that write_quad_offsets writes; `line_offsets` [lines], ascending or not.
int64_t quad_count(const GemmI8Shape& shape);
void write_quad_offsets(const GemmI8Shape& shape, const int64_t* line_offsets, int32_t* offsets);

// The largest size of a[k] w[n][k] + a[k+1] w[n][k+1], k even within its line, a in 0 .. top:
// 16-bit sums of products are exact where it allows them.
int64_t pair_bound(const GemmI8Shape& shape, const int8_t* codes, int32_t top);

std::span<const GemmI8Kernel* const> gemm_i8_kernels();  // best first

// Rows, each defined where its instruction set exists.
extern const GemmI8Kernel gemm_i8_scalar, gemm_i8_avx2, gemm_i8_avxvnni, gemm_i8_avx512vnni,
    gemm_i8_amx;

}  // namespace repquant::runtime
