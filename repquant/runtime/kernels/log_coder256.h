#pragma once
#include "repquant/runtime/kernels/float256.h"
#include "repquant/runtime/kernels/log_fit.h"

namespace repquant::runtime {

// Codes of 8 values against descending thresholds.
class LogCoder256 {
 public:
  REPQUANT_INLINE256 LogCoder256(const float* thresholds, int64_t count, const LogFit& fit)
      : thresholds_(thresholds),
        count_(static_cast<int32_t>(count)),
        usable_(fit.usable),
        slope_(_mm256_set1_ps(-fit.slope)),
        offset_(_mm256_set1_ps(fit.offset)),
        most_(_mm256_set1_ps(static_cast<float>(count) - 0.5f)) {}

  REPQUANT_INLINE256 __m256i operator()(__m256 x) const { return usable_ ? guess(x) : counted(x); }

 private:
  REPQUANT_INLINE256 __m256i counted(__m256 x) const {
    __m256i code = _mm256_setzero_si256();
    for (int32_t i = 0; i < count_; ++i) {
      const __m256 below = _mm256_cmp_ps(x, _mm256_broadcast_ss(thresholds_ + i), _CMP_LT_OQ);
      code = _mm256_sub_epi32(code, _mm256_castps_si256(below));
    }
    return code;
  }

  // Where thresholds below `smallest normal` have no code, -0.5 and count - 0.5 are the ends: a NaN
  // has the exponent of infinity and lies above all.
  REPQUANT_INLINE256 __m256i guess(__m256 x) const {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i exponent = _mm256_and_si256(_mm256_srli_epi32(bits, 23), _mm256_set1_epi32(255));
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 mantissa =
        _mm256_or_ps(_mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffff))), one);
    const __m256 z = _mm256_sub_ps(mantissa, one);
    __m256 p = _mm256_set1_ps(kLog2[5]);
#pragma GCC unroll 5
    for (int k = 4; k >= 0; --k) p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(kLog2[k]));
    const __m256 whole = _mm256_cvtepi32_ps(_mm256_sub_epi32(exponent, _mm256_set1_epi32(127)));
    __m256 v = _mm256_fmadd_ps(_mm256_fmadd_ps(p, z, whole), slope_, offset_);
    const __m256 none =
        _mm256_cmp_ps(x, _mm256_set1_ps(std::numeric_limits<float>::min()), _CMP_LT_OQ);
    v = _mm256_blendv_ps(v, most_, none);
    v = _mm256_min_ps(_mm256_max_ps(v, _mm256_set1_ps(-0.5f)), most_);
    const __m256 off =
        _mm256_sub_ps(v, _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    const __m256 close = _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), off),
                                       _mm256_set1_ps(kGuessError), _CMP_LT_OQ);
    const __m256i code =
        _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_floor_ps(v)), _mm256_set1_epi32(1));
    const int some = _mm256_movemask_ps(close);
    return __builtin_expect(some == 0, 1) ? code : settled(code, x, v, some);
  }

  // A value next to threshold k has the code k or k + 1.
  __attribute__((noinline)) REPQUANT_AVX2 __m256i settled(__m256i code, __m256 x, __m256 v,
                                                          int some) const {
    alignas(32) int32_t codes[8], nearest[8];
    alignas(32) float values[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), code);
    _mm256_store_si256(reinterpret_cast<__m256i*>(nearest), _mm256_cvtps_epi32(v));
    _mm256_store_ps(values, x);
    for (; some != 0; some &= some - 1) {
      const int i = __builtin_ctz(static_cast<unsigned>(some));
      codes[i] = nearest[i] + (values[i] < thresholds_[nearest[i]] ? 1 : 0);
    }
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
  }

  const float* thresholds_;
  int32_t count_;
  bool usable_;
  __m256 slope_, offset_, most_;
};

}  // namespace repquant::runtime
