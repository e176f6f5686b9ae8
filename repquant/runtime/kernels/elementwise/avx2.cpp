#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include <cstring>

#include "repquant/runtime/kernels/elementwise/portable.h"
#include "repquant/runtime/kernels/log_coder256.h"

namespace repquant::runtime {
namespace {

// Four vectors of values to 32 codes at a time; `code` gives int32 within 0 .. 255.
template <class Code>
REPQUANT_INLINE256 void encode(const float* x, int64_t count, uint8_t* to, const Code& code) {
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    __m256i codes[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) codes[v] = code(_mm256_loadu_ps(x + i + 8 * v));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                        float256::to_bytes(codes[0], codes[1], codes[2], codes[3]));
  }
  for (; i < count; i += 8) {
    const __m256i live = float256::first_lanes(count - i);
    float256::store_bytes(code(_mm256_maskload_ps(x + i, live)), count - i, to + i);
  }
}

REPQUANT_AVX2 void quantize256(const QuantizeArgs& args) noexcept {
  const float256::Codes codes(args.zero, args.lo, args.hi);
  const __m256 inverse = _mm256_set1_ps(args.inv);
  encode(args.x, args.count, args.codes,
         [&](__m256 x) REPQUANT_AVX2 { return codes.round(_mm256_mul_ps(x, inverse)); });
}

REPQUANT_AVX2 void quantize_log256(const QuantizeLogArgs& args) noexcept {
  if (!args.fit.usable && args.levels >= kManyThresholds) return quantize_log(args);
  const LogCoder256 coder(args.thresholds, args.levels, args.fit);
  const __m256 shift = _mm256_set1_ps(args.shift);
  encode(args.x, args.count, args.codes,
         [&](__m256 x) REPQUANT_AVX2 { return coder(_mm256_add_ps(x, shift)); });
}

// Sixteen lookups of 16 entries: those whose row of the table is another's shift out of 0 .. 15,
// and saturate to bytes with the highest bit, which look up zero.
REPQUANT_AVX2 void table256(const TableArgs& args) noexcept {
  __m256i rows[16];
  for (int r = 0; r < 16; ++r)
    rows[r] = _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(args.table + 16 * r)));
  const __m256i next = _mm256_set1_epi8(16), high = _mm256_set1_epi8(0x70);
  int64_t i = 0;
  for (; i + 32 <= args.count; i += 32) {
    __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(args.codes + i));
    __m256i found = _mm256_setzero_si256();
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
      found = _mm256_or_si256(found, _mm256_shuffle_epi8(rows[r], _mm256_adds_epu8(at, high)));
      at = _mm256_sub_epi8(at, next);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(args.out + i), found);
  }
  for (; i < args.count; ++i) args.out[i] = args.table[args.codes[i]];
}

}  // namespace

const ElementwiseKernel elementwise_avx2{
    "elementwise/avx2", Isa::kAvx2, quantize256, quantize_log256, table256, dequantize, add, mul};

}  // namespace repquant::runtime
#endif
