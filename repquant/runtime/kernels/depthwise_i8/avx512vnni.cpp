// AVX512-VNNI: 64 neighbouring codes of an output row at a time, four taps a product. The rows a
// window covers are copied with their padding, and split by the phase of the stride, so that a tap
// always reads neighbouring codes; channels that repeat within 64, or are a multiple of it, need no
// more than that; other numbers of channels take the portable code.
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include <cstring>

#include "repquant/runtime/kernels/depthwise_i8/portable.h"
#include "repquant/runtime/kernels/dot.h"
#include "repquant/runtime/kernels/vnni512.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kLanes = 64;

struct Layout {
  int64_t taps, groups, blocks;  // groups of four taps; blocks of 64 channels
  int64_t phase_bytes, row_bytes;
  explicit Layout(const DepthwiseI8Args& args)
      : taps(args.window.height * args.window.width),
        groups((taps + 3) / 4),
        blocks(std::max<int64_t>(1, args.channels / kLanes)) {
    const int64_t padded = args.width + args.window.left + args.window.right;
    phase_bytes = ((padded + args.window.stride_x - 1) / args.window.stride_x) * args.channels;
    row_bytes = phase_bytes * args.window.stride_x;
  }
};

constexpr int64_t kMostTaps = 256;

// Codes outside the image must be bytes.
bool fits(const DepthwiseI8Args& args) {
  return (args.channels % kLanes == 0 || kLanes % args.channels == 0) && args.za >= 0 &&
         args.za <= 255 && Layout(args).groups * 4 <= kMostTaps;
}

struct Wide {
  int8_t* weights;     // [blocks][groups][4][64]: dwords of four taps, in the order of interleave()
  int32_t *base, *zw;  // [blocks][4][16], in that order
  float *scale, *bias;  // [blocks][64]
  Wide(const Layout& layout, std::byte* at)
      : weights(reinterpret_cast<int8_t*>(at)),
        base(reinterpret_cast<int32_t*>(at + layout.blocks * layout.groups * 4 * kLanes)),
        zw(base + layout.blocks * kLanes),
        scale(reinterpret_cast<float*>(zw + layout.blocks * kLanes)),
        bias(scale + layout.blocks * kLanes) {}
};

size_t wide_packed_bytes(const DepthwiseI8Args& args) {
  if (!fits(args)) return packed_bytes(args);
  const Layout layout(args);
  return static_cast<size_t>(layout.blocks * (layout.groups * 4 + 16) * kLanes);
}

size_t wide_scratch_bytes(const DepthwiseI8Args& args) {
  if (!fits(args)) return 0;
  return static_cast<size_t>(args.window.height * Layout(args).row_bytes + kLanes);
}

// Lane of the element that interleave() puts at dword `at` of vector `vector`.
constexpr int64_t lane_of(int64_t vector, int64_t at) { return at / 4 * 16 + vector * 4 + at % 4; }

void wide_pack(const DepthwiseI8Args& args, std::byte* to) {
  if (!fits(args)) return pack(args, to);
  const Layout layout(args);
  const Wide wide(layout, to);
  for (int64_t block = 0; block < layout.blocks; ++block) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t vector = i / 16, at = i % 16;
      const int64_t n = (block * kLanes + lane_of(vector, at)) % args.channels;
      // t = c + sum a w - zw (sum a - taps za)
      const int32_t zw = args.zw == nullptr ? 0 : args.zw[n];
      wide.zw[block * kLanes + i] = zw;
      wide.base[block * kLanes + i] = static_cast<int32_t>(
          static_cast<uint32_t>(args.c[n]) +
          static_cast<uint32_t>(zw) * static_cast<uint32_t>(layout.taps * args.za));
      for (int64_t tap = 0; tap < layout.groups * 4; ++tap) {
        wide.weights[((block * layout.groups + tap / 4) * 4 + vector) * kLanes + at * 4 + tap % 4] =
            tap < layout.taps ? args.w[n * layout.taps + tap] : int8_t{0};
      }
      const int64_t own = (block * kLanes + i) % args.channels;
      wide.scale[block * kLanes + i] = args.m != nullptr ? args.m[own] : args.s[own];
      wide.bias[block * kLanes + i] = args.m != nullptr ? 0.0f : args.b[own];
    }
  }
}

// The rows of the image under one row of windows, padded with za, pixels by phase of the stride.
void copy_rows(const DepthwiseI8Args& args, const Layout& layout, int64_t oy) {
  const Window& w = args.window;
  const int64_t channels = args.channels;
  for (int64_t ky = 0; ky < w.height; ++ky) {
    uint8_t* row = reinterpret_cast<uint8_t*>(args.scratch) + ky * layout.row_bytes;
    const int64_t y = oy * w.stride_y + ky * w.dilation_y - w.top;
    std::memset(row, args.za, static_cast<size_t>(layout.row_bytes));
    if (y < 0 || y >= args.height) continue;
    const uint8_t* from = args.image + y * args.width * channels;
    if (w.stride_x == 1) {
      std::memcpy(row + w.left * channels, from, static_cast<size_t>(args.width * channels));
      continue;
    }
    for (int64_t x = 0; x < args.width; ++x) {
      const int64_t place = x + w.left;
      std::memcpy(row + place % w.stride_x * layout.phase_bytes + place / w.stride_x * channels,
                  from + x * channels, static_cast<size_t>(channels));
    }
  }
}

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

REPQUANT_INLINE512 void write(const DepthwiseI8Args& args, const Wide& wide, const __m512i (&t)[4],
                              int64_t block, int64_t at, int64_t live) {
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
REPQUANT_AVX512VNNI void output_row(const DepthwiseI8Args& args, const Layout& layout,
                                    const Wide& wide, const int64_t* offsets, int64_t oy) {
  const int64_t lanes = args.columns * args.channels;
  const auto* rows = reinterpret_cast<const uint8_t*>(args.scratch);
  for (int64_t first = 0; first < lanes; first += kLanes) {
    const int64_t block = first / kLanes % layout.blocks;
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
  }
}

REPQUANT_AVX512VNNI void run_wide(const DepthwiseI8Args& args) noexcept {
  if (!fits(args)) return run(args);
  const Layout layout(args);
  const Wide wide(layout, const_cast<std::byte*>(args.packed));
  int64_t offsets[kMostTaps] = {};
  for (int64_t tap = 0; tap < layout.taps; ++tap) {
    const int64_t x = tap % args.window.width * args.window.dilation_x;
    offsets[tap] = tap / args.window.width * layout.row_bytes +
                   x % args.window.stride_x * layout.phase_bytes +
                   x / args.window.stride_x * args.channels;
  }
  for (int64_t oy = args.first_row; oy < args.first_row + args.rows; ++oy) {
    copy_rows(args, layout, oy);
    args.zw == nullptr ? output_row<false>(args, layout, wide, offsets, oy)
                       : output_row<true>(args, layout, wide, offsets, oy);
  }
}

}  // namespace

const DepthwiseI8Kernel depthwise_i8_avx512vnni{"depthwise_i8/avx512vnni", Isa::kAvx512Vnni,
                                                wide_packed_bytes,         wide_pack,
                                                wide_scratch_bytes,        run_wide};

}  // namespace repquant::runtime
#endif
