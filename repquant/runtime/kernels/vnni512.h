#pragma once
// What the AVX512-VNNI rows share: the 6 x 64 block of exact products, rounding to codes.
#include <immintrin.h>

#include <cstdint>

#include "repquant/runtime/kernels/target.h"

namespace repquant::runtime::vnni512 {

inline constexpr int64_t kRows = 6;
inline constexpr int64_t kColumns = 64;

// acc += products of 4 codes with 4 weights in every lane. As assembly under g++, which otherwise
// spills the 24 accumulators.
REPQUANT_INLINE512 void dot4(__m512i& acc, __m512i codes, __m512i weights) {
#if defined(__clang__)
  acc = _mm512_dpbusd_epi32(acc, codes, weights);
#else
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(weights));
#endif
}

// acc[r][v] = products of row r with columns 16 v .. 16 v + 15 of the panel [quads][16
// kVectors][4].
template <int kTileRows, int kVectors>
REPQUANT_INLINE512 void products(const uint8_t* a, int64_t stride, const int8_t* panel,
                                 int64_t quads, __m512i (&acc)[kTileRows][kVectors]) {
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[r][v] = _mm512_setzero_si512();
  }
  for (int64_t q = 0; q < quads; ++q) {
    __m512i w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) w[v] = _mm512_loadu_si512(panel + 64 * v);
    panel += 64 * kVectors;
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      int32_t quad;
      __builtin_memcpy(&quad, a + r * stride + 4 * q, 4);
      const __m512i codes = _mm512_set1_epi32(quad);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) dot4(acc[r][v], codes, w[v]);
    }
  }
}

// Values in units of one step to u8 codes: quantize_scaled of core/format.
struct Codes {
  __m512 low, high;
  __m512i zero;
  REPQUANT_INLINE512 Codes(int32_t z, int32_t lo, int32_t hi)
      : low(_mm512_set1_ps(static_cast<float>(lo - z))),
        high(_mm512_set1_ps(static_cast<float>(hi - z))),
        zero(_mm512_set1_epi32(z)) {}
  REPQUANT_INLINE512 __m512i round(__m512 v) const {
    const __m512 clamped = _mm512_min_ps(_mm512_max_ps(v, low), high);  // NaN gives low
    return _mm512_add_epi32(_mm512_cvtps_epi32(clamped), zero);
  }
  REPQUANT_INLINE512 void store(__m512 v, __mmask16 live, uint8_t* to) const {
    _mm512_mask_cvtepi32_storeu_epi8(to, live, round(v));
  }
};

REPQUANT_INLINE512 uint32_t byte_sum(const uint8_t* a, int64_t count) {
  __m512i sum = _mm512_setzero_si512();
  const __m512i none = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 64 <= count; i += 64)
    sum = _mm512_add_epi64(sum, _mm512_sad_epu8(_mm512_loadu_si512(a + i), none));
  if (i < count) {
    const __mmask64 live = (~uint64_t{0}) >> (64 - (count - i));
    sum = _mm512_add_epi64(sum, _mm512_sad_epu8(_mm512_maskz_loadu_epi8(live, a + i), none));
  }
  return static_cast<uint32_t>(_mm512_reduce_add_epi64(sum));
}

}  // namespace repquant::runtime::vnni512
