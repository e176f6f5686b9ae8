#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "repquant/runtime/kernels/float512.h"

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

}  // namespace repquant::runtime
