#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/elementwise/portable.h"
#include "repquant/runtime/kernels/log_coder512.h"

namespace repquant::runtime {
namespace {

REPQUANT_AVX512VNNI void quantize_log_buckets(const QuantizeLogArgs& args,
                                              const ThresholdBuckets& coder) {
  const __m512 shift = _mm512_set1_ps(args.shift);
  const __m512i first = _mm512_set1_epi32(coder.first()), last = _mm512_set1_epi32(coder.last()),
                one = _mm512_set1_epi32(1);
  for (int64_t i = 0; i < args.count; i += 16) {
    const __mmask16 live = float512::first_lanes(args.count - i);
    const __m512 x = _mm512_add_ps(_mm512_maskz_loadu_ps(live, args.x + i), shift);
    const __m512i bucket = _mm512_srai_epi32(_mm512_castps_si512(x), ThresholdBuckets::kShift);
    const __m512i at =
        _mm512_sub_epi32(_mm512_min_epi32(_mm512_max_epi32(bucket, first), last), first);
    const __m512 next = _mm512_i32gather_ps(at, coder.next(), 4);
    __m512i code = _mm512_i32gather_epi32(at, coder.base(), 4);
    code = _mm512_mask_add_epi32(code, _mm512_cmp_ps_mask(x, next, _CMP_LT_OQ), code, one);
    code = _mm512_maskz_mov_epi32(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), code);
    _mm512_mask_cvtepi32_storeu_epi8(args.codes + i, live, code);
  }
}

template <class Coder>
REPQUANT_INLINE512 void quantize_log_by(const QuantizeLogArgs& args, const Coder& coder) {
  const __m512 shift = _mm512_set1_ps(args.shift);
  int64_t i = 0;
  for (; i + 64 <= args.count; i += 64) {
    __m512i codes[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v)
      codes[v] = coder(_mm512_add_ps(_mm512_loadu_ps(args.x + i + 16 * v), shift));
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v)
      _mm_storeu_si128(reinterpret_cast<__m128i*>(args.codes + i + 16 * v),
                       _mm512_cvtepi32_epi8(codes[v]));
  }
  for (; i < args.count; i += 16) {
    const __mmask16 live = float512::first_lanes(args.count - i);
    const __m512 x = _mm512_add_ps(_mm512_maskz_loadu_ps(live, args.x + i), shift);
    _mm512_mask_cvtepi32_storeu_epi8(args.codes + i, live, coder(x));
  }
}

REPQUANT_AVX512VNNI void quantize_log_wide(const QuantizeLogArgs& args) noexcept {
  if (args.levels >= kManyThresholds && args.fit.usable)
    return quantize_log_by(args, LogGuess(args.thresholds, args.levels, args.fit));
  if (args.levels >= kManyThresholds && args.count >= kManyValues) {
    const ThresholdBuckets buckets(args.thresholds, args.levels);
    if (buckets.usable()) return quantize_log_buckets(args, buckets);
  }
  quantize_log_by(args, LogCoder(args.thresholds, args.levels));
}

// 256 entries in four registers: two lookups of 128 and a choice by the highest bit.
__attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vbmi"))) void table_bytes(
    const TableArgs& args) {
  const __m512i t0 = _mm512_loadu_si512(args.table), t1 = _mm512_loadu_si512(args.table + 64),
                t2 = _mm512_loadu_si512(args.table + 128),
                t3 = _mm512_loadu_si512(args.table + 192);
  for (int64_t i = 0; i < args.count; i += 64) {
    const int64_t left = args.count - i;
    const __mmask64 live = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    const __m512i codes = _mm512_maskz_loadu_epi8(live, args.codes + i);
    const __m512i low = _mm512_permutex2var_epi8(t0, codes, t1),
                  high = _mm512_permutex2var_epi8(t2, codes, t3);
    _mm512_mask_storeu_epi8(args.out + i, live,
                            _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(codes), high));
  }
}

void table_wide(const TableArgs& args) noexcept {
  static const bool by_bytes = __builtin_cpu_supports("avx512vbmi");
  by_bytes ? table_bytes(args) : table(args);
}

}  // namespace

const ElementwiseKernel elementwise_avx512vnni{"elementwise/avx512vnni",
                                               Isa::kAvx512Vnni,
                                               quantize,
                                               quantize_log_wide,
                                               table_wide,
                                               dequantize,
                                               add,
                                               mul};

}  // namespace repquant::runtime
#endif
