#pragma once
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "repquant/runtime/kernels/float512.h"
#include "repquant/runtime/kernels/log_fit.h"

namespace repquant::runtime {

// Codes of 16 values against descending thresholds: by halving where two registers hold them all,
// else one by one.
class LogCoder {
 public:
  REPQUANT_INLINE512 LogCoder(const float* thresholds, int64_t count)
      : thresholds_(thresholds), count_(count) {
    const __m512 none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    const int64_t here = std::min<int64_t>(count, 32);
    low_ = _mm512_mask_loadu_ps(none, float512::first_lanes(here), thresholds);
    high_ = here <= 16
                ? none
                : _mm512_mask_loadu_ps(none, float512::first_lanes(here - 16), thresholds + 16);
  }
  REPQUANT_INLINE512 __m512i operator()(__m512 p) const {
    if (count_ <= 15) {
      __m512i code = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (int step = 8; step > 0; step /= 2) {
        const __m512i at = _mm512_add_epi32(code, _mm512_set1_epi32(step - 1));
        const __mmask16 below = _mm512_cmp_ps_mask(p, _mm512_permutexvar_ps(at, low_), _CMP_LT_OQ);
        code = _mm512_mask_add_epi32(code, below, code, _mm512_set1_epi32(step));
      }
      return code;
    }
    if (count_ <= 31) {
      __m512i code = _mm512_setzero_si512();
#pragma GCC unroll 5
      for (int step = 16; step > 0; step /= 2) {
        const __m512i at = _mm512_add_epi32(code, _mm512_set1_epi32(step - 1));
        const __mmask16 below =
            _mm512_cmp_ps_mask(p, _mm512_permutex2var_ps(low_, at, high_), _CMP_LT_OQ);
        code = _mm512_mask_add_epi32(code, below, code, _mm512_set1_epi32(step));
      }
      return code;
    }
    __m512i code = _mm512_setzero_si512();
    const __m512i one = _mm512_set1_epi32(1);
    for (int64_t i = 0; i < count_; ++i) {
      code = _mm512_mask_add_epi32(
          code, _mm512_cmp_ps_mask(p, _mm512_set1_ps(thresholds_[i]), _CMP_LT_OQ), code, one);
    }
    return code;
  }

 private:
  const float* thresholds_;
  int64_t count_;
  __m512 low_, high_;
};

// Codes of x / s for a whole row of x >= 0 and its s > 0, those LogCoder gives for the rounded
// quotients, without the divisions. fl(x / s) >= t holds from one x on: quotients round to t from
// the middle m between t and the float below, m itself only if t is even. s m is exact in a double
// (24 + 25 bits), so the bound of x is s m rounded up. A product with 1 / s, wrong by at most 3
// ulp, selects one of 64 bins by its top two bits of mantissa; a bin leaves two codes, which one
// comparison tells apart. Only the low 16 bits of a code's lane are set right.
class RowLogCoder {
 public:
  static constexpr int kBins = 64;

  REPQUANT_INLINE512 RowLogCoder(const float* thresholds, int64_t count)
      : fits_(count <= 15 && count >= 1) {
    if (!fits_) return;
    double middle[16] = {};
    uint16_t odd = 0;
    for (int64_t k = 0; k < count; ++k) {
      const float t = thresholds[k];
      fits_ = fits_ && t >= 1e-30f && t <= 1.0f && (k == 0 || t < thresholds[k - 1]);
      const uint32_t bits = std::bit_cast<uint32_t>(t);
      middle[k] = (double{t} + double{std::bit_cast<float>(bits - 1)}) / 2;
      odd = static_cast<uint16_t>(odd | (bits & 1) << k);
    }
    if (!fits_) return;
    low_ = _mm512_loadu_pd(middle);
    high_ = _mm512_loadu_pd(middle + 8);
    odd_ = odd;
    live_ = float512::first_lanes(count);
    constexpr float kSlack = 1e-6f;  // more than 3 ulp
    base_ = key(thresholds[count - 1] * (1 - kSlack)) - 1;
    uint16_t bins[kBins];
    int64_t code = count;  // of the bin's top
    for (uint32_t b = 0; b < kBins; ++b) {
      const float bottom = b == 0 ? 0.0f : edge(base_ + b) * (1 - kSlack);
      const float top = b + 1 == kBins ? std::numeric_limits<float>::infinity()
                                       : edge(base_ + b + 1) * (1 + kSlack);
      while (code > 0 && thresholds[code - 1] < top) --code;
      fits_ = fits_ && (code + 1 >= count || thresholds[code + 1] <= bottom);
      bins[b] = static_cast<uint16_t>(code);
    }
    first_bins_ = _mm512_loadu_si512(bins);
    last_bins_ = _mm512_loadu_si512(bins + 32);
  }

  bool fits() const { return fits_; }

  REPQUANT_INLINE512 void row(float s) {
    inverse_ = _mm512_set1_ps(1.0f / s);
    const __m512d factor = _mm512_set1_pd(double{s});
    const __m512d low = _mm512_mul_pd(low_, factor), high = _mm512_mul_pd(high_, factor);
    constexpr int kUp = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;
    const __m256 low_up = _mm512_cvt_roundpd_ps(low, kUp),
                 high_up = _mm512_cvt_roundpd_ps(high, kUp);
    const auto tie =
        static_cast<__mmask16>(_mm512_cmp_pd_mask(_mm512_cvtps_pd(low_up), low, _CMP_EQ_OQ) |
                               _mm512_cmp_pd_mask(_mm512_cvtps_pd(high_up), high, _CMP_EQ_OQ) << 8);
    __m512i bound =
        _mm512_castps_si512(_mm512_insertf32x8(_mm512_castps256_ps512(low_up), high_up, 1));
    bound = _mm512_mask_add_epi32(bound, static_cast<__mmask16>(tie & odd_), bound,
                                  _mm512_set1_epi32(1));
    const __m512 none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    bounds_ = _mm512_mask_mov_ps(none, live_, _mm512_castsi512_ps(bound));
  }

  REPQUANT_INLINE512 __m512i operator()(__m512 x) const {
    const __m512i bits = _mm512_castps_si512(_mm512_mul_ps(x, inverse_));
    const __m512i bin = _mm512_min_epu16(
        _mm512_subs_epu16(_mm512_srli_epi32(bits, kShift), _mm512_set1_epi32(base_)),
        _mm512_set1_epi32(kBins - 1));
    const __m512i code = _mm512_permutex2var_epi16(first_bins_, bin, last_bins_);
    const __mmask16 below = _mm512_cmp_ps_mask(x, _mm512_permutexvar_ps(code, bounds_), _CMP_LT_OQ);
    return _mm512_mask_add_epi32(code, below, code, _mm512_set1_epi32(1));
  }

 private:
  static constexpr int kShift = 21;  // leaves exponent and two bits of mantissa
  static uint32_t key(float p) { return std::bit_cast<uint32_t>(p) >> kShift; }
  static float edge(uint32_t k) { return std::bit_cast<float>(k << kShift); }

  bool fits_;
  uint32_t base_ = 0;
  __mmask16 odd_ = 0, live_ = 0;
  __m512d low_, high_;
  __m512i first_bins_, last_bins_;
  __m512 inverse_, bounds_;
};

// Codes of 16 values against many thresholds that have a fit.
class LogGuess {
 public:
  REPQUANT_INLINE512 LogGuess(const float* thresholds, int64_t count, const LogFit& fit)
      : thresholds_(thresholds),
        slope_(_mm512_set1_ps(-fit.slope)),
        offset_(_mm512_set1_ps(fit.offset)),
        most_(_mm512_set1_ps(static_cast<float>(count) - 0.5f)) {}

  // -0.5 and count - 0.5 are the ends. A NaN has no exponent and lies above all thresholds.
  REPQUANT_INLINE512 __m512i operator()(__m512 x) const {
    const __m512 exponent = _mm512_getexp_ps(x);
    const __m512 z = _mm512_sub_ps(_mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero),
                                   _mm512_set1_ps(1.0f));
    __m512 p = _mm512_set1_ps(kLog2[5]);
#pragma GCC unroll 5
    for (int k = 4; k >= 0; --k) p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(kLog2[k]));
    __m512 v = _mm512_fmadd_ps(_mm512_fmadd_ps(p, z, exponent), slope_, offset_);
    const __m512 least = _mm512_set1_ps(std::numeric_limits<float>::min());
    v = _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(x, least, _CMP_LT_OQ), most_);
    v = _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(-0.5f)), most_);
    const __m512 off = _mm512_abs_ps(_mm512_sub_ps(v, _mm512_roundscale_ps(v, 0x08)));
    const __mmask16 close = _mm512_cmp_ps_mask(off, _mm512_set1_ps(kGuessError), _CMP_LT_OQ);
    const __m512i code =
        _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_roundscale_ps(v, 0x09)), _mm512_set1_epi32(1));
    return __builtin_expect(close == 0, 1) ? code : settled(code, x, v, close);
  }

 private:
  // A value next to threshold k has the code k or k + 1.
  __attribute__((noinline)) REPQUANT_AVX512VNNI __m512i settled(__m512i code, __m512 x, __m512 v,
                                                                __mmask16 some) const {
    const __m512i nearest = _mm512_cvtps_epi32(v);
    const __m512 next =
        _mm512_mask_i32gather_ps(_mm512_setzero_ps(), some, nearest, thresholds_, 4);
    code = _mm512_mask_mov_epi32(code, some, nearest);
    const __mmask16 below = _mm512_mask_cmp_ps_mask(some, x, next, _CMP_LT_OQ);
    return _mm512_mask_add_epi32(code, below, nearest, _mm512_set1_epi32(1));
  }

  const float* thresholds_;
  __m512 slope_, offset_, most_;
};

}  // namespace repquant::runtime
