#pragma once
// Up to 4 rows of codes times weights of 4 bits, which are unpacked in registers: what takes the
// time is reading them. A group of 64 bytes holds two quads of 16 columns. kDot: with vpdpbusd;
// else with products of 16 bits, of which eight fit beside one another (8 * 2 * 255 * 8 < 2^15).
// REPQUANT_TARGET is the attribute of the file that includes this.
#include "repquant/runtime/kernels/gemm_i4/portable.h"
#include "repquant/runtime/kernels/gemm_i8/tiles256.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kFewRows = 4;
#define REPQUANT_INLINE_TARGET REPQUANT_TARGET __attribute__((always_inline)) inline

// Weights of a group: [quad][columns 0 .. 7, 8 .. 15].
REPQUANT_INLINE_TARGET void unpack_group(const uint8_t* from, __m256i (&w)[2][2]) {
  const __m256i mask = _mm256_set1_epi8(15), raised = _mm256_set1_epi8(8);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32 * half));
    w[0][half] = _mm256_sub_epi8(_mm256_and_si256(bytes, mask), raised);
    w[1][half] = _mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask), raised);
  }
}

REPQUANT_INLINE_TARGET __m256i quad_of(const uint8_t* a, int64_t q) {
  int32_t quad;
  std::memcpy(&quad, a + 4 * q, 4);
  return _mm256_set1_epi32(quad);
}

REPQUANT_INLINE_TARGET void dot_few(__m256i& acc, __m256i codes, __m256i weights) {
#if defined(__clang__)
  acc = _mm256_dpbusd_avx_epi32(acc, codes, weights);
#else
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(weights));
#endif
}

// A panel of 16 columns; the codes behind an odd number of quads meet weights of zero.
template <bool kDot, int kRows>
__attribute__((noinline)) REPQUANT_TARGET void few_tile(const GemmI8Args& args,
                                                        const uint8_t* const (&a)[kRows],
                                                        const uint8_t* panel, int64_t first) {
  const int64_t groups = (quads_of(args.shape) + 1) / 2;
  __m256i t[kRows][2][2];  // of even and odd quads
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
    t[r][0][0] = t[r][0][1] = t[r][1][0] = t[r][1][1] = _mm256_setzero_si256();
  if constexpr (kDot) {
    for (int64_t g = 0; g < groups; ++g, panel += 64) {
      __m256i w[2][2];
      unpack_group(panel, w);
#pragma GCC unroll 2
      for (int q = 0; q < 2; ++q) {
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const __m256i codes = quad_of(a[r], 2 * g + q);
          dot_few(t[r][q][0], codes, w[q][0]);
          dot_few(t[r][q][1], codes, w[q][1]);
        }
      }
    }
  } else {
    constexpr int64_t kBurst = 4;  // groups, of two products each
    const __m256i ones = _mm256_set1_epi16(1);
    for (int64_t begin = 0; begin < groups; begin += kBurst) {
      __m256i part[kRows][2];
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) part[r][0] = part[r][1] = _mm256_setzero_si256();
      for (int64_t g = begin, end = std::min(groups, begin + kBurst); g < end; ++g, panel += 64) {
        __m256i w[2][2];
        unpack_group(panel, w);
#pragma GCC unroll 2
        for (int q = 0; q < 2; ++q) {
#pragma GCC unroll 4
          for (int r = 0; r < kRows; ++r) {
            const __m256i codes = quad_of(a[r], 2 * g + q);
            part[r][0] = _mm256_add_epi16(part[r][0], _mm256_maddubs_epi16(codes, w[q][0]));
            part[r][1] = _mm256_add_epi16(part[r][1], _mm256_maddubs_epi16(codes, w[q][1]));
          }
        }
      }
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        t[r][0][0] = _mm256_add_epi32(t[r][0][0], _mm256_madd_epi16(part[r][0], ones));
        t[r][0][1] = _mm256_add_epi32(t[r][0][1], _mm256_madd_epi16(part[r][1], ones));
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    tiles256::finish16(args, _mm256_add_epi32(t[r][0][0], t[r][1][0]),
                       _mm256_add_epi32(t[r][0][1], t[r][1][1]), r, first);
  }
}

template <bool kDot, int kRows> REPQUANT_TARGET void few_panels(const GemmI8Args& args) {
  RowCursor cursor(args);
  const uint8_t* a[kRows];
  for (int r = 0; r < kRows; ++r) a[r] = cursor.next();
  const auto* panel = static_cast<const uint8_t*>(args.weights);
  const int64_t bytes = (quads_of(args.shape) + 1) / 2 * 64;
  for (int64_t first = 0; first < args.shape.n; first += tiles256::kPanel, panel += bytes)
    few_tile<kDot, kRows>(args, a, panel, first);
}

template <bool kDot, const GemmI8Kernel& kWide>
REPQUANT_TARGET void run256(const GemmI8Args& args, int bits) noexcept {
  if (args.rows > kFewRows || bits != 4 || args.quad_offsets != nullptr)
    return run<kWide, int8_t>(args, bits);
  int32_t sums[kFewRows];
  GemmI8Args summed = args;
  if (args.zw != nullptr && args.sums == nullptr) {
    tiles256::row_sums(args, sums);
    summed.sums = sums;
  }
  switch (args.rows) {
    case 1:
      return few_panels<kDot, 1>(summed);
    case 2:
      return few_panels<kDot, 2>(summed);
    case 3:
      return few_panels<kDot, 3>(summed);
    default:
      return few_panels<kDot, 4>(summed);
  }
}

}  // namespace
}  // namespace repquant::runtime
