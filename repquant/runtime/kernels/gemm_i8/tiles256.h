#pragma once
// What the rows of 256-bit vectors share: panels of 16 columns, [K/4][16][4], and the way out of a
// tile. Functions are inlined into those of a row, whose instruction set includes AVX2.
#include <immintrin.h>

#include <cstring>

#include "repquant/runtime/kernels/float256.h"
#include "repquant/runtime/kernels/gemm_i8/rows.h"
#include "repquant/runtime/kernels/target.h"

namespace repquant::runtime::tiles256 {
namespace {

constexpr int64_t kPanel = 16;

inline size_t packed_bytes(const GemmI8Shape& shape) {
  return static_cast<size_t>(round_up(shape.n, kPanel) * quad_depth(shape));
}

inline void pack(const GemmI8Shape& shape, const int8_t* codes, void* packed) {
  std::memset(packed, 0, packed_bytes(shape));
  const int64_t depth = quad_depth(shape), line = line_length(shape);
  for (int64_t n = 0; n < shape.n; ++n) {
    auto* panel = static_cast<int8_t*>(packed) + n / kPanel * kPanel * depth;
    for (int64_t l = 0; l < shape.lines; ++l, codes += line) {
      for (int64_t k = 0; k < line; k += 4) {
        const int64_t quad = l * line_quads(shape) + k / 4;
        std::memcpy(panel + (quad * kPanel + n % kPanel) * 4, codes + k,
                    static_cast<size_t>(std::min<int64_t>(4, line - k)));
      }
    }
  }
}

[[maybe_unused]] REPQUANT_AVX2 __attribute__((flatten)) void row_sums(const GemmI8Args& args,
                                                                      int32_t* sums) noexcept {
  sum_rows(args, sums,
           [](const uint8_t* a, int64_t count) REPQUANT_AVX2 { return float256::byte_sum(a, count); });
}

// Eight sums of row `row`, columns from `column` on, to codes that are still int32, or to floats.
REPQUANT_INLINE256 __m256i finish(const GemmI8Args& args, __m256i t, int64_t row, int64_t column,
                                  __m256i live) {
  t = _mm256_add_epi32(t, _mm256_maskload_epi32(args.c + column, live));
  if (args.zw != nullptr) {
    const __m256i zw = _mm256_maskload_epi32(args.zw + column, live);
    t = _mm256_sub_epi32(t, _mm256_mullo_epi32(zw, _mm256_set1_epi32(args.sums[row])));
  }
  const __m256 x = _mm256_cvtepi32_ps(t);
  if (args.codes == nullptr) {
    const int64_t at = row * args.out_stride + column;
    __m256 y = _mm256_fmadd_ps(x, _mm256_maskload_ps(args.s + column, live),
                               _mm256_maskload_ps(args.b + column, live));
    if (args.residual != nullptr)
      y = _mm256_add_ps(_mm256_maskload_ps(args.residual + at, live), y);
    _mm256_maskstore_ps(args.out + at, live, y);
    return t;
  }
  const __m256 low = _mm256_set1_ps(static_cast<float>(args.lo - args.zero));
  const __m256 high = _mm256_set1_ps(static_cast<float>(args.hi - args.zero));
  const __m256 v = _mm256_mul_ps(x, _mm256_maskload_ps(args.m + column, live));
  return _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(v, low), high)),
                          _mm256_set1_epi32(args.zero));
}

// Sixteen sums of a row.
REPQUANT_INLINE256 void finish16(const GemmI8Args& args, __m256i t0, __m256i t1, int64_t row,
                                 int64_t first) {
  const int64_t left = args.shape.n - first;
  t0 = finish(args, t0, row, first, float256::first_lanes(left));
  if (left > 8) t1 = finish(args, t1, row, first + 8, float256::first_lanes(left - 8));
  if (args.codes == nullptr) return;
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(t0, t1), 0xd8);
  const __m128i bytes =
      _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  uint8_t* to = args.codes + row * args.out_stride + first;
  if (left >= 16) return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  alignas(16) uint8_t part[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(part), bytes);
  std::memcpy(to, part, static_cast<size_t>(left));
}

}  // namespace
}  // namespace repquant::runtime::tiles256
