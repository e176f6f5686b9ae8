// AVX512-VNNI: 64 codes at a time, four taps a product.
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/depthwise_i8/lanes.h"
#include "repquant/runtime/kernels/vnni512.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kLanes = 64;

// Dwords of four taps: vector v holds elements 4 v .. 4 v + 3 of every quarter of 16.
REPQUANT_INLINE512 void interleave(const __m512i (&a)[4], __m512i (&v)[4]) {
  const __m512i low01 = _mm512_unpacklo_epi8(a[0], a[1]), high01 = _mm512_unpackhi_epi8(a[0], a[1]),
                low23 = _mm512_unpacklo_epi8(a[2], a[3]), high23 = _mm512_unpackhi_epi8(a[2], a[3]);
  v[0] = _mm512_unpacklo_epi16(low01, low23);
  v[1] = _mm512_unpackhi_epi16(low01, low23);
  v[2] = _mm512_unpacklo_epi16(high01, high23);
  v[3] = _mm512_unpackhi_epi16(high01, high23);
}

// Quarters of four vectors, transposed: the elements in their own order again.
REPQUANT_INLINE512 void in_order(__m512i (&v)[4]) {
  const __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44),
                b = _mm512_shuffle_i32x4(v[0], v[1], 0xee),
                c = _mm512_shuffle_i32x4(v[2], v[3], 0x44),
                d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
  v[0] = _mm512_shuffle_i32x4(a, c, 0x88);
  v[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
  v[2] = _mm512_shuffle_i32x4(b, d, 0x88);
  v[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

REPQUANT_INLINE512 void write(const DepthwiseI8Args& args, const Wide<kLanes, false>& wide,
                              const __m512i (&t)[4], int64_t block, int64_t at, int64_t live) {
  const vnni512::Codes codes(args.zero, args.lo, args.hi);
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const int64_t left = live - 16 * v;
    if (left <= 0) return;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1 << left) - 1);
    const __m512 x = _mm512_cvtepi32_ps(t[v]);
    const __m512 scale = _mm512_loadu_ps(wide.scale + block * kLanes + 16 * v);
    if (args.codes != nullptr) {
      codes.store(_mm512_mul_ps(x, scale), mask, args.codes + at + 16 * v);
    } else {
      const __m512 bias = _mm512_loadu_ps(wide.bias + block * kLanes + 16 * v);
      _mm512_mask_storeu_ps(args.out + at + 16 * v, mask, _mm512_fmadd_ps(x, scale, bias));
    }
  }
}

template <bool kAsymmetric>
REPQUANT_AVX512VNNI void output_row(const DepthwiseI8Args& args, const Layout<kLanes>& layout,
                                    const Wide<kLanes, false>& wide, const int64_t* offsets,
                                    int64_t oy) {
  const int64_t lanes = args.columns * args.channels;
  const auto* rows = reinterpret_cast<const uint8_t*>(args.scratch);
  int64_t block = 0;
  for (int64_t first = 0; first < lanes; first += kLanes) {
    __m512i acc[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) acc[v] = _mm512_loadu_si512(wide.base + (block * 4 + v) * 16);
    __m512i sums[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                       _mm512_setzero_si512()};
    const int8_t* weights = wide.weights + block * layout.groups * 4 * kLanes;
    for (int64_t g = 0; g < layout.groups; ++g, weights += 4 * kLanes) {
      __m512i a[4], v[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) a[i] = _mm512_loadu_si512(rows + offsets[4 * g + i] + first);
      interleave(a, v);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        vnni512::dot4(acc[i], v[i], _mm512_loadu_si512(weights + i * kLanes));
      if constexpr (kAsymmetric) {
        const int64_t live = std::min<int64_t>(4, layout.taps - 4 * g);
        const __m512i ones =
            _mm512_set1_epi32(0x01010101 & static_cast<int32_t>(0xffffffffu >> (8 * (4 - live))));
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) vnni512::dot4(sums[i], v[i], ones);
      }
    }
    if constexpr (kAsymmetric) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v)
        acc[v] = _mm512_sub_epi32(
            acc[v],
            _mm512_mullo_epi32(sums[v], _mm512_loadu_si512(wide.zw + (block * 4 + v) * 16)));
    }
    in_order(acc);
    write(args, wide, acc, block, oy * lanes + first, lanes - first);
    block = block + 1 == layout.blocks ? 0 : block + 1;
  }
}

REPQUANT_AVX512VNNI void run_wide(const DepthwiseI8Args& args) noexcept {
  if (!fits<kLanes, false>(args)) return run(args);
  each_row<kLanes, false>(args, [&](const auto& layout, const auto& wide, const int64_t* offsets,
                                    int64_t oy) REPQUANT_AVX512VNNI {
    args.zw == nullptr ? output_row<false>(args, layout, wide, offsets, oy)
                       : output_row<true>(args, layout, wide, offsets, oy);
  });
}

}  // namespace

const DepthwiseI8Kernel depthwise_i8_avx512vnni{
    "depthwise_i8/avx512vnni",         Isa::kAvx512Vnni,
    wide_packed_bytes<kLanes, false>,  wide_pack<kLanes, false>,
    wide_scratch_bytes<kLanes, false>, run_wide};

}  // namespace repquant::runtime
#endif
