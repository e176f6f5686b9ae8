#pragma once
// gemm_i8: rows of u8 codes times signed weight codes, int32 exact, with the fused epilogues of the
// `linear` step (core/plan.h):
//   t[r][n] = sum_k a[r][k] w[n][k] + c[n] - zw[n] * sum_k (a[r][k] - za)
//   codes   = rne(clampf(float(t) * m[n], lo - zero, hi - zero)) + zero
//   f32     = fmaf(float(t), s[n], b[n]), after a residual: residual + that
// Kernels check nothing, allocate nothing and know nothing of threads. The caller has proven that
// no int32 sum can overflow.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

struct GemmI8Shape {
  int64_t n = 0, k = 0;
};

struct GemmI8Args {
  GemmI8Shape shape;
  int64_t rows = 0;
  const uint8_t* a = nullptr;     // [rows][k]
  const void* weights = nullptr;  // as written by the row's `pack`, 64-byte aligned
  const int32_t* c = nullptr;     // [n]
  const int32_t* zw = nullptr;    // [n], or nullptr: all zero
  int32_t za = 0;
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
  size_t (*packed_bytes)(const GemmI8Shape&);
  void (*pack)(const GemmI8Shape&, const int8_t* codes, void* packed);  // codes [n][k]
  size_t (*scratch_bytes)(const GemmI8Shape&);
  void (*run)(const GemmI8Args&) noexcept;
};

std::span<const GemmI8Kernel* const> gemm_i8_kernels();  // best first

// Rows, each defined where its instruction set exists.
extern const GemmI8Kernel gemm_i8_scalar, gemm_i8_avx2, gemm_i8_avxvnni, gemm_i8_avx512vnni;

}  // namespace repquant::runtime
