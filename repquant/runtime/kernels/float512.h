#pragma once
// The laws of core/format/elementary.h and reduce.h on 16 floats: the same operations in the same
// order, so equal bits.
#include <immintrin.h>

#include "repquant/runtime/kernels/target.h"

namespace repquant::runtime::float512 {

REPQUANT_INLINE512 __m512 constant(float x) { return _mm512_set1_ps(x); }

// p * x + c with two roundings.
REPQUANT_INLINE512 __m512 horner(__m512 p, __m512 x, float c) {
  return _mm512_add_ps(_mm512_mul_ps(p, x), constant(c));
}

// exp_f32; the two exact scalings by powers of two are one instruction that rounds once.
REPQUANT_INLINE512 __m512 exp(__m512 x) {
  const __m512 magic = constant(12582912.0f);
  const __m512 safe = _mm512_min_ps(_mm512_max_ps(x, constant(-104.0f)), constant(89.0f));
  const __m512 n =
      _mm512_sub_ps(_mm512_add_ps(_mm512_mul_ps(safe, constant(1.44269504f)), magic), magic);
  const __m512 r = _mm512_sub_ps(_mm512_sub_ps(safe, _mm512_mul_ps(n, constant(0.693359375f))),
                                 _mm512_mul_ps(n, constant(-2.12194440e-4f)));
  __m512 p = constant(0x1.6db592p-10f);
  p = horner(p, r, 0x1.123c5ap-7f);
  p = horner(p, r, 0x1.55545cp-5f);
  p = horner(p, r, 0x1.55548ep-3f);
  p = horner(p, r, 0.5f);
  const __m512 e =
      _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(p, _mm512_mul_ps(r, r)), r), constant(1.0f));
  const __m512 y = _mm512_scalef_ps(e, n);
  return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

// combine_lanes
REPQUANT_INLINE512 float combine(__m512 lanes) {
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

REPQUANT_INLINE512 __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1u << count) - 1);
}

}  // namespace repquant::runtime::float512
