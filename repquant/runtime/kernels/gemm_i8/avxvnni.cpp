// AVX-VNNI: tiles of 3 rows by 24 columns, 9 accumulators of 8 columns. Weights lie in panels of 24
// columns, [K/4][columns][4].
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "repquant/runtime/kernels/gemm_i8/quads.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kRows = 3, kColumns = 24;

size_t packed_bytes(const GemmI8Shape& shape) {
  return static_cast<size_t>(round_up(shape.n, kColumns) * quad_depth(shape));
}

void pack(const GemmI8Shape& shape, const int8_t* codes, void* packed) {
  std::memset(packed, 0, packed_bytes(shape));
  const int64_t depth = quad_depth(shape);
  for (int64_t n = 0; n < shape.n; ++n) {
    auto* panel = static_cast<int8_t*>(packed) + n / kColumns * kColumns * depth;
    const int8_t* row = codes + n * shape.k;
    for (int64_t k = 0; k < shape.k; ++k)
      panel[(k / 4 * kColumns + n % kColumns) * 4 + k % 4] = row[k];
  }
}

#define REPQUANT_INLINE REPQUANT_AVXVNNI __attribute__((always_inline)) inline

REPQUANT_INLINE __m256i live_lanes(int64_t count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(std::min<int64_t>(count, 8))),
                            index);
}

int32_t code_sum(const GemmI8Args& args, int64_t row) {
  const uint8_t* a = args.a + row * args.shape.k;
  uint32_t sum = 0;
  for (int64_t i = 0; i < args.shape.k; ++i) sum += a[i];
  return static_cast<int32_t>(sum -
                              static_cast<uint32_t>(args.shape.k) * static_cast<uint32_t>(args.za));
}

REPQUANT_INLINE void finish(const GemmI8Args& args, __m256i t, int64_t row, int64_t column,
                            int32_t sum) {
  const int64_t n = args.shape.n, left = n - column, at = row * n + column;
  const __m256i live = live_lanes(left);
  t = _mm256_add_epi32(t, _mm256_maskload_epi32(args.c + column, live));
  if (args.zw != nullptr) {
    const __m256i zw = _mm256_maskload_epi32(args.zw + column, live);
    t = _mm256_sub_epi32(t, _mm256_mullo_epi32(zw, _mm256_set1_epi32(sum)));
  }
  const __m256 x = _mm256_cvtepi32_ps(t);
  if (args.codes == nullptr) {
    __m256 y = _mm256_fmadd_ps(x, _mm256_maskload_ps(args.s + column, live),
                               _mm256_maskload_ps(args.b + column, live));
    if (args.residual != nullptr)
      y = _mm256_add_ps(_mm256_maskload_ps(args.residual + at, live), y);
    _mm256_maskstore_ps(args.out + at, live, y);
    return;
  }
  const __m256 low = _mm256_set1_ps(static_cast<float>(args.lo - args.zero));
  const __m256 high = _mm256_set1_ps(static_cast<float>(args.hi - args.zero));
  const __m256 v = _mm256_mul_ps(x, _mm256_maskload_ps(args.m + column, live));
  const __m256i rounded = _mm256_add_epi32(
      _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, low), high)), _mm256_set1_epi32(args.zero));
  const __m128i words =
      _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
  const int64_t bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
  std::memcpy(args.codes + at, &bytes, static_cast<size_t>(std::min<int64_t>(left, 8)));
}

template <int kTileRows>
REPQUANT_INLINE void tile(const GemmI8Args& args, const uint8_t* a, int64_t stride,
                          const int8_t* panel, int64_t row, int64_t first) {
  __m256i acc[kTileRows][3];
#pragma GCC unroll 3
  for (int r = 0; r < kTileRows; ++r) acc[r][0] = acc[r][1] = acc[r][2] = _mm256_setzero_si256();
  const int64_t quads = quad_depth(args.shape) / 4;
  for (int64_t q = 0; q < quads; ++q, panel += 4 * kColumns) {
    const auto* w = reinterpret_cast<const __m256i*>(panel);
    const __m256i w0 = _mm256_loadu_si256(w), w1 = _mm256_loadu_si256(w + 1),
                  w2 = _mm256_loadu_si256(w + 2);
#pragma GCC unroll 3
    for (int r = 0; r < kTileRows; ++r) {
      int32_t quad;
      std::memcpy(&quad, a + r * stride + 4 * q, 4);
      const __m256i codes = _mm256_set1_epi32(quad);
      acc[r][0] = _mm256_dpbusd_avx_epi32(acc[r][0], codes, w0);
      acc[r][1] = _mm256_dpbusd_avx_epi32(acc[r][1], codes, w1);
      acc[r][2] = _mm256_dpbusd_avx_epi32(acc[r][2], codes, w2);
    }
  }
#pragma GCC unroll 3
  for (int r = 0; r < kTileRows; ++r) {
    const int32_t sum = args.zw == nullptr ? 0 : code_sum(args, row + r);
#pragma GCC unroll 3
    for (int v = 0; v < 3; ++v) {
      if (first + 8 * v < args.shape.n) finish(args, acc[r][v], row + r, first + 8 * v, sum);
    }
  }
}

// Rows [row, row + rows) of the matrix, read at `a`.
REPQUANT_AVXVNNI void panels(const GemmI8Args& args, const uint8_t* a, int64_t stride, int64_t row,
                             int64_t rows) {
  const int64_t depth = quad_depth(args.shape);
  for (int64_t first = 0; first < args.shape.n; first += kColumns) {
    const int8_t* panel = static_cast<const int8_t*>(args.weights) + first * depth;
    int64_t r = 0;
    for (; r + kRows <= rows; r += kRows)
      tile<kRows>(args, a + r * stride, stride, panel, row + r, first);
    for (; r < rows; ++r) tile<1>(args, a + r * stride, stride, panel, row + r, first);
  }
}

REPQUANT_AVXVNNI void run(const GemmI8Args& args) noexcept {
  for_quad_rows(args, [&args](const uint8_t* a, int64_t stride, int64_t row, int64_t rows) {
    panels(args, a, stride, row, rows);
  });
}

}  // namespace

const GemmI8Kernel gemm_i8_avxvnni{
    "gemm_i8/avxvnni", Isa::kAvxVnni, kRows, packed_bytes, pack, quad_scratch_bytes, run};

}  // namespace repquant::runtime
#endif
