#pragma once
// The laws of core/format/elementary.h and reduce.h on vectors of 16 floats: the same operations in
// the same order, so equal bits. A Pack is N vectors side by side: their chains of operations are
// independent, and written step by step they hide one another's latency.
#include <immintrin.h>

#include <cstdint>

#include "repquant/runtime/kernels/target.h"

namespace repquant::runtime::float512 {

template <int N> struct Pack { __m512 v[N]; };

#define REPQUANT_EACH _Pragma("GCC unroll 4") for (int i = 0; i < N; ++i)

template <int N> REPQUANT_INLINE512 Pack<N> constant(float x) {
  Pack<N> all;
  REPQUANT_EACH all.v[i] = _mm512_set1_ps(x);
  return all;
}
template <int N> REPQUANT_INLINE512 Pack<N> load(const float* x) {
  Pack<N> all;
  REPQUANT_EACH all.v[i] = _mm512_loadu_ps(x + 16 * i);
  return all;
}
template <int N> REPQUANT_INLINE512 void store(float* to, Pack<N> x) {
  REPQUANT_EACH _mm512_storeu_ps(to + 16 * i, x.v[i]);
}
template <int N> REPQUANT_INLINE512 Pack<N> add(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH a.v[i] = _mm512_add_ps(a.v[i], b.v[i]);
  return a;
}
template <int N> REPQUANT_INLINE512 Pack<N> sub(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH a.v[i] = _mm512_sub_ps(a.v[i], b.v[i]);
  return a;
}
template <int N> REPQUANT_INLINE512 Pack<N> mul(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH a.v[i] = _mm512_mul_ps(a.v[i], b.v[i]);
  return a;
}
template <int N> REPQUANT_INLINE512 Pack<N> div(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH a.v[i] = _mm512_div_ps(a.v[i], b.v[i]);
  return a;
}
// a > b ? a : b, b where one is NaN; smaller likewise.
template <int N> REPQUANT_INLINE512 Pack<N> larger(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH a.v[i] = _mm512_max_ps(a.v[i], b.v[i]);
  return a;
}
template <int N> REPQUANT_INLINE512 Pack<N> smaller(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH a.v[i] = _mm512_min_ps(a.v[i], b.v[i]);
  return a;
}
// a 2^b, rounded once.
template <int N> REPQUANT_INLINE512 Pack<N> scaled(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH a.v[i] = _mm512_scalef_ps(a.v[i], b.v[i]);
  return a;
}
// y, but NaN where x is NaN.
template <int N> REPQUANT_INLINE512 Pack<N> keep_nan(Pack<N> y, Pack<N> x) {
  REPQUANT_EACH y.v[i] =
      _mm512_mask_mov_ps(y.v[i], _mm512_cmp_ps_mask(x.v[i], x.v[i], _CMP_UNORD_Q), x.v[i]);
  return y;
}
// a < b ? x : y
template <int N> REPQUANT_INLINE512 Pack<N> where_less(Pack<N> a, Pack<N> b, Pack<N> x, Pack<N> y) {
  REPQUANT_EACH y.v[i] =
      _mm512_mask_mov_ps(y.v[i], _mm512_cmp_ps_mask(a.v[i], b.v[i], _CMP_LT_OQ), x.v[i]);
  return y;
}
template <int N> REPQUANT_INLINE512 Pack<N> negated(Pack<N> x) {
  REPQUANT_EACH x.v[i] = _mm512_xor_ps(x.v[i], _mm512_set1_ps(-0.0f));
  return x;
}
template <int N> REPQUANT_INLINE512 Pack<N> absolute(Pack<N> x) {
  REPQUANT_EACH x.v[i] = _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x.v[i]);
  return x;
}
// The size of y with the sign of x.
template <int N> REPQUANT_INLINE512 Pack<N> with_sign(Pack<N> y, Pack<N> x) {
  REPQUANT_EACH y.v[i] = _mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(_mm512_castps_si512(_mm512_set1_ps(-0.0f)),
                                _mm512_castps_si512(x.v[i]), _mm512_castps_si512(y.v[i]), 0xca));
  return y;
}

// Holds a step of several chains together: the compiler would write one chain behind the other,
// and their latencies would add up.
template <int N> REPQUANT_INLINE512 Pack<N> in_step(Pack<N> x) {
  REPQUANT_EACH asm("" : "+v"(x.v[i]));
  return x;
}

// p x + c with two roundings.
template <int N> REPQUANT_INLINE512 Pack<N> horner(Pack<N> p, Pack<N> x, float c) {
  return in_step(add(in_step(mul(p, x)), constant<N>(c)));
}

// exp_f32; its two scalings by powers of two, of which the first is exact, are one that rounds
// once. kNotPositive: x <= 0 or NaN, which needs no upper bound.
template <bool kNotPositive = false, int N> REPQUANT_INLINE512 Pack<N> exp(Pack<N> x) {
  const Pack<N> magic = constant<N>(12582912.0f);
  Pack<N> safe = larger(x, constant<N>(-104.0f));
  if (!kNotPositive) safe = smaller(safe, constant<N>(89.0f));
  safe = in_step(safe);
  const Pack<N> shifted = in_step(add(in_step(mul(safe, constant<N>(1.44269504f))), magic));
  const Pack<N> n = in_step(sub(shifted, magic));
  const Pack<N> high = in_step(sub(safe, in_step(mul(n, constant<N>(0.693359375f)))));
  const Pack<N> r = in_step(sub(high, in_step(mul(n, constant<N>(-2.12194440e-4f)))));
  Pack<N> p = constant<N>(0x1.6db592p-10f);
  p = horner(p, r, 0x1.123c5ap-7f);
  p = horner(p, r, 0x1.55545cp-5f);
  p = horner(p, r, 0x1.55548ep-3f);
  p = horner(p, r, 0.5f);
  const Pack<N> curved = in_step(mul(p, in_step(mul(r, r))));
  const Pack<N> e = in_step(add(in_step(add(curved, r)), constant<N>(1.0f)));
  return keep_nan(in_step(scaled(e, n)), x);
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
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1);
}

}  // namespace repquant::runtime::float512
