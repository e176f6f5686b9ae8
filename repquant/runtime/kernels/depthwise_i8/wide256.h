#pragma once
// Rows of 256-bit vectors: 32 codes at a time, taps in fours for vpdpbusd (kDot) or in pairs of
// int16 for vpmaddwd. REPQUANT_TARGET is the attribute of the file that includes this.
#include "repquant/runtime/kernels/depthwise_i8/lanes.h"
#include "repquant/runtime/kernels/float256.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kLanes = 32;
#define REPQUANT_INLINE_TARGET REPQUANT_TARGET __attribute__((always_inline)) inline

REPQUANT_INLINE_TARGET __m256i load256(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

// Dwords of four taps: vector v holds elements 4 v .. 4 v + 3 of every half of 32.
REPQUANT_INLINE_TARGET void interleave(const __m256i (&a)[4], __m256i (&v)[4]) {
  const __m256i low01 = _mm256_unpacklo_epi8(a[0], a[1]), high01 = _mm256_unpackhi_epi8(a[0], a[1]),
                low23 = _mm256_unpacklo_epi8(a[2], a[3]), high23 = _mm256_unpackhi_epi8(a[2], a[3]);
  v[0] = _mm256_unpacklo_epi16(low01, low23);
  v[1] = _mm256_unpackhi_epi16(low01, low23);
  v[2] = _mm256_unpacklo_epi16(high01, high23);
  v[3] = _mm256_unpackhi_epi16(high01, high23);
}
// Of two taps, as int16.
REPQUANT_INLINE_TARGET void interleave(__m256i a, __m256i b, __m256i (&v)[4]) {
  const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b),
                none = _mm256_setzero_si256();
  v[0] = _mm256_unpacklo_epi8(low, none);
  v[1] = _mm256_unpackhi_epi8(low, none);
  v[2] = _mm256_unpacklo_epi8(high, none);
  v[3] = _mm256_unpackhi_epi8(high, none);
}

REPQUANT_INLINE_TARGET void dot4(__m256i& acc, __m256i codes, __m256i weights) {
#if defined(__clang__)
  acc = _mm256_dpbusd_avx_epi32(acc, codes, weights);
#else
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(weights));
#endif
}

// Halves of four vectors: the elements in their own order again.
REPQUANT_INLINE_TARGET void in_order(__m256i (&v)[4]) {
  const __m256i a = v[0], b = v[1], c = v[2], d = v[3];
  v[0] = _mm256_permute2x128_si256(a, b, 0x20);
  v[1] = _mm256_permute2x128_si256(c, d, 0x20);
  v[2] = _mm256_permute2x128_si256(a, b, 0x31);
  v[3] = _mm256_permute2x128_si256(c, d, 0x31);
}

template <bool kDot>
REPQUANT_INLINE_TARGET void write(const DepthwiseI8Args& args, const Wide<kLanes, !kDot>& wide,
                                  const __m256i (&t)[4], int64_t block, int64_t at, int64_t live) {
  const float256::Codes codes(args.zero, args.lo, args.hi);
  const float *scale = wide.scale + block * kLanes, *bias = wide.bias + block * kLanes;
  __m256i q[4];
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m256 x = _mm256_cvtepi32_ps(t[v]), s = _mm256_loadu_ps(scale + 8 * v);
    if (args.codes != nullptr) {
      q[v] = codes.round(_mm256_mul_ps(x, s));
      continue;
    }
    const __m256 y = _mm256_fmadd_ps(x, s, _mm256_loadu_ps(bias + 8 * v));
    if (live >= 8 * v + 8) _mm256_storeu_ps(args.out + at + 8 * v, y);
    else if (live > 8 * v)
      _mm256_maskstore_ps(args.out + at + 8 * v, float256::first_lanes(live - 8 * v), y);
  }
  if (args.codes == nullptr) return;
  const __m256i bytes = float256::to_bytes(q[0], q[1], q[2], q[3]);
  if (live >= kLanes)
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(args.codes + at), bytes);
  alignas(32) uint8_t part[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(part), bytes);
  std::memcpy(args.codes + at, part, static_cast<size_t>(live));
}

// kSums: the sums of codes times the weights' zero points are taken off.
template <bool kDot, bool kSums>
REPQUANT_TARGET void output_row(const DepthwiseI8Args& args, const Layout<kLanes>& layout,
                                const Wide<kLanes, !kDot>& wide, const int64_t* offsets,
                                int64_t oy) {
  const int64_t lanes = args.columns * args.channels;
  const auto* rows = reinterpret_cast<const uint8_t*>(args.scratch);
  int64_t block = 0;
  for (int64_t first = 0; first < lanes; first += kLanes) {
    __m256i acc[4], sums[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      acc[v] = load256(wide.base + (block * 4 + v) * 8);
      sums[v] = _mm256_setzero_si256();
    }
    const auto* weights = wide.weights + block * layout.groups * 4 * kLanes;
    for (int64_t g = 0; g < layout.groups; ++g, weights += 4 * kLanes) {
      __m256i a[4], v[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) a[i] = load256(rows + offsets[4 * g + i] + first);
      if constexpr (kDot) {
        interleave(a, v);
        const int64_t live = std::min<int64_t>(4, layout.taps - 4 * g);
        const __m256i ones =
            _mm256_set1_epi32(0x01010101 & static_cast<int32_t>(0xffffffffu >> (8 * (4 - live))));
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          dot4(acc[i], v[i], load256(weights + i * kLanes));
          if constexpr (kSums) dot4(sums[i], v[i], ones);
        }
      } else {
#pragma GCC unroll 2
        for (int pair = 0; pair < 2; ++pair) {
          interleave(a[2 * pair], a[2 * pair + 1], v);
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            float256::add_pairs(acc[i], v[i], load256(weights + (pair * 4 + i) * 16));
          }
        }
      }
    }
    if constexpr (kSums) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v)
        acc[v] = _mm256_sub_epi32(
            acc[v], _mm256_mullo_epi32(sums[v], load256(wide.zw + (block * 4 + v) * 8)));
    }
    in_order(acc);
    write<kDot>(args, wide, acc, block, oy * lanes + first, lanes - first);
    block = block + 1 == layout.blocks ? 0 : block + 1;
  }
}

template <bool kDot> REPQUANT_TARGET void run256(const DepthwiseI8Args& args) noexcept {
  if (!fits<kLanes, !kDot>(args)) return run(args);
  each_row<kLanes, !kDot>(args, [&](const auto& layout, const auto& wide, const int64_t* offsets,
                                    int64_t oy) REPQUANT_TARGET {
    if constexpr (kDot) {
      if (args.zw != nullptr) return output_row<kDot, true>(args, layout, wide, offsets, oy);
    }
    output_row<kDot, false>(args, layout, wide, offsets, oy);
  });
}

}  // namespace
}  // namespace repquant::runtime
