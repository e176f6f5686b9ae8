#pragma once
// The laws of core/format/elementary.h and reduce.h on vectors of 8 floats, as float512.h has them
// on 16: the same operations in the same order, so equal bits. The sixteen virtual lanes of a sum
// are two vectors.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "repquant/runtime/kernels/target.h"

#define REPQUANT_INLINE256 REPQUANT_AVX2 __attribute__((always_inline)) inline

namespace repquant::runtime::float256 {

template <int N> struct Pack { __m256 v[N]; };

#define REPQUANT_EACH8 _Pragma("GCC unroll 4") for (int i = 0; i < N; ++i)

template <int N> REPQUANT_INLINE256 Pack<N> constant(float x) {
  Pack<N> all;
  REPQUANT_EACH8 all.v[i] = _mm256_set1_ps(x);
  return all;
}
template <int N> REPQUANT_INLINE256 Pack<N> load(const float* x) {
  Pack<N> all;
  REPQUANT_EACH8 all.v[i] = _mm256_loadu_ps(x + 8 * i);
  return all;
}
template <int N> REPQUANT_INLINE256 void store(float* to, Pack<N> x) {
  REPQUANT_EACH8 _mm256_storeu_ps(to + 8 * i, x.v[i]);
}
template <int N> REPQUANT_INLINE256 Pack<N> add(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH8 a.v[i] = _mm256_add_ps(a.v[i], b.v[i]);
  return a;
}
template <int N> REPQUANT_INLINE256 Pack<N> sub(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH8 a.v[i] = _mm256_sub_ps(a.v[i], b.v[i]);
  return a;
}
template <int N> REPQUANT_INLINE256 Pack<N> mul(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH8 a.v[i] = _mm256_mul_ps(a.v[i], b.v[i]);
  return a;
}
template <int N> REPQUANT_INLINE256 Pack<N> div(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH8 a.v[i] = _mm256_div_ps(a.v[i], b.v[i]);
  return a;
}
// a > b ? a : b, b where one is NaN; smaller likewise.
template <int N> REPQUANT_INLINE256 Pack<N> larger(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH8 a.v[i] = _mm256_max_ps(a.v[i], b.v[i]);
  return a;
}
template <int N> REPQUANT_INLINE256 Pack<N> smaller(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH8 a.v[i] = _mm256_min_ps(a.v[i], b.v[i]);
  return a;
}
// a 2^b by two scalings of which the first is exact; b whole, within -151 .. 128.
template <int N> REPQUANT_INLINE256 Pack<N> scaled(Pack<N> a, Pack<N> b) {
  REPQUANT_EACH8 {
    const __m256i exponent = _mm256_cvttps_epi32(b.v[i]), half = _mm256_srai_epi32(exponent, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(exponent, half), bias), 23);
    a.v[i] = _mm256_mul_ps(_mm256_mul_ps(a.v[i], _mm256_castsi256_ps(first)),
                           _mm256_castsi256_ps(second));
  }
  return a;
}
// y, but NaN where x is NaN.
template <int N> REPQUANT_INLINE256 Pack<N> keep_nan(Pack<N> y, Pack<N> x) {
  REPQUANT_EACH8 y.v[i] =
      _mm256_blendv_ps(y.v[i], x.v[i], _mm256_cmp_ps(x.v[i], x.v[i], _CMP_UNORD_Q));
  return y;
}
// a < b ? x : y
template <int N> REPQUANT_INLINE256 Pack<N> where_less(Pack<N> a, Pack<N> b, Pack<N> x, Pack<N> y) {
  REPQUANT_EACH8 y.v[i] =
      _mm256_blendv_ps(y.v[i], x.v[i], _mm256_cmp_ps(a.v[i], b.v[i], _CMP_LT_OQ));
  return y;
}
template <int N> REPQUANT_INLINE256 Pack<N> negated(Pack<N> x) {
  REPQUANT_EACH8 x.v[i] = _mm256_xor_ps(x.v[i], _mm256_set1_ps(-0.0f));
  return x;
}
template <int N> REPQUANT_INLINE256 Pack<N> absolute(Pack<N> x) {
  REPQUANT_EACH8 x.v[i] = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v[i]);
  return x;
}
// The size of y with the sign of x.
template <int N> REPQUANT_INLINE256 Pack<N> with_sign(Pack<N> y, Pack<N> x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  REPQUANT_EACH8 y.v[i] = _mm256_or_ps(_mm256_and_ps(sign, x.v[i]), _mm256_andnot_ps(sign, y.v[i]));
  return y;
}

// p x + c with two roundings.
template <int N> REPQUANT_INLINE256 Pack<N> horner(Pack<N> p, Pack<N> x, float c) {
  return add(mul(p, x), constant<N>(c));
}

// exp_f32
template <int N> REPQUANT_INLINE256 Pack<N> exp(Pack<N> x) {
  const Pack<N> magic = constant<N>(12582912.0f);
  const Pack<N> safe = smaller(larger(x, constant<N>(-104.0f)), constant<N>(89.0f));
  const Pack<N> n = sub(add(mul(safe, constant<N>(1.44269504f)), magic), magic);
  const Pack<N> r =
      sub(sub(safe, mul(n, constant<N>(0.693359375f))), mul(n, constant<N>(-2.12194440e-4f)));
  Pack<N> p = constant<N>(0x1.6db592p-10f);
  p = horner(p, r, 0x1.123c5ap-7f);
  p = horner(p, r, 0x1.55545cp-5f);
  p = horner(p, r, 0x1.55548ep-3f);
  p = horner(p, r, 0.5f);
  const Pack<N> e = add(add(mul(p, mul(r, r)), r), constant<N>(1.0f));
  return keep_nan(scaled(e, n), x);
}

// combine_lanes of lanes 0 .. 7 and 8 .. 15
REPQUANT_INLINE256 float combine(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// All ones in the first `count` lanes of eight.
REPQUANT_INLINE256 __m256i first_lanes(int64_t count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(
      _mm256_set1_epi32(static_cast<int32_t>(std::clamp<int64_t>(count, 0, 8))), index);
}

// The largest of all lanes; no NaN among them.
REPQUANT_INLINE256 float largest_lane(__m256 x) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// Four vectors of int32 within 0 .. 255 to 32 bytes.
REPQUANT_INLINE256 __m256i to_bytes(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i words = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
  return _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
// One vector to 8 bytes.
REPQUANT_INLINE256 int64_t to_bytes(__m256i a) {
  const __m256i words = _mm256_packus_epi32(a, a);
  const __m256i bytes = _mm256_packus_epi16(words, words);
  return static_cast<int64_t>(static_cast<uint32_t>(_mm256_extract_epi32(bytes, 0))) |
         static_cast<int64_t>(
             static_cast<uint64_t>(static_cast<uint32_t>(_mm256_extract_epi32(bytes, 4))) << 32);
}
REPQUANT_INLINE256 void store_bytes(__m256i a, int64_t live, uint8_t* to) {
  const int64_t bytes = to_bytes(a);
  __builtin_memcpy(to, &bytes, static_cast<size_t>(std::min<int64_t>(live, 8)));
}

// acc += products of pairs of int16. As assembly under g++, which otherwise gathers many products
// before it adds them, and moves accumulators to the stack to have room.
REPQUANT_INLINE256 void add_pairs(__m256i& acc, __m256i a, __m256i b) {
#if defined(__clang__)
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
#else
  __m256i products;
  __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(acc), "=&x"(products) : "x"(a), "x"(b));
#endif
}

// Values in units of one step to u8 codes that are still int32: quantize_scaled of core/format.
struct Codes {
  __m256 low, high;
  __m256i zero;
  REPQUANT_INLINE256 Codes(int32_t z, int32_t lo, int32_t hi)
      : low(_mm256_set1_ps(static_cast<float>(lo - z))),
        high(_mm256_set1_ps(static_cast<float>(hi - z))),
        zero(_mm256_set1_epi32(z)) {}
  REPQUANT_INLINE256 __m256i round(__m256 v) const {
    const __m256 clamped = _mm256_min_ps(_mm256_max_ps(v, low), high);  // NaN gives low
    return _mm256_add_epi32(_mm256_cvtps_epi32(clamped), zero);
  }
};

REPQUANT_INLINE256 uint32_t byte_sum(const uint8_t* a, int64_t count) {
  __m256i sum = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + i));
    sum = _mm256_add_epi64(sum, _mm256_sad_epu8(x, _mm256_setzero_si256()));
  }
  const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
  auto total = static_cast<uint32_t>(_mm_extract_epi64(half, 0) + _mm_extract_epi64(half, 1));
  for (; i < count; ++i) total += a[i];
  return total;
}

}  // namespace repquant::runtime::float256
