#pragma once
// What the vector rows share: kLanes neighbouring codes of an output row at a time, in four vectors
// of int32 sums, and four taps at a time. The rows a window covers are copied with their padding,
// and split by the phase of the stride, so that a tap always reads neighbouring codes. The channels
// of lanes repeat after `blocks` times kLanes codes. kWords: taps in pairs of int16, whose zero
// points are off; else in fours of int8.
#include <cstring>
#include <numeric>

#include "repquant/runtime/kernels/depthwise_i8/portable.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kMostTaps = 256;
constexpr int64_t kMostWeights = 64 << 10;  // bytes, beyond the channels' own

template <int64_t kLanes> struct Layout {
  int64_t taps, groups, blocks;  // groups of four taps; blocks of lanes
  int64_t phase_bytes, row_bytes;
  explicit Layout(const DepthwiseI8Args& args)
      : taps(args.window.height * args.window.width),
        groups((taps + 3) / 4),
        blocks(args.channels / std::gcd(args.channels, kLanes)) {
    const int64_t padded = args.width + args.window.left + args.window.right;
    phase_bytes = ((padded + args.window.stride_x - 1) / args.window.stride_x) * args.channels;
    row_bytes = phase_bytes * args.window.stride_x;
  }
};

// Codes outside the image must be bytes; int16 must hold weights without their zero points.
template <int64_t kLanes, bool kWords> bool fits(const DepthwiseI8Args& args) {
  const Layout<kLanes> layout(args);
  if (args.za < 0 || args.za > 255 || layout.groups * 4 > kMostTaps) return false;
  if (layout.blocks * kLanes > args.channels &&
      layout.blocks * layout.groups * 4 * kLanes > kMostWeights)
    return false;
  if (!kWords || args.zw == nullptr) return true;
  return std::all_of(args.zw, args.zw + args.channels,
                     [](int32_t zw) { return zw >= -32000 && zw <= 32000; });
}

template <int64_t kLanes, bool kWords> struct Wide {
  using Weight = std::conditional_t<kWords, int16_t, int8_t>;
  Weight* weights;      // [blocks][groups][4 / taps of a dword][4 vectors][lanes][taps of a dword]
  int32_t *base, *zw;   // [blocks][4 vectors][lanes]
  float *scale, *bias;  // [blocks][kLanes], in the order of the output
  Wide(const Layout<kLanes>& layout, std::byte* at)
      : weights(reinterpret_cast<Weight*>(at)),
        base(reinterpret_cast<int32_t*>(weights + layout.blocks * layout.groups * 4 * kLanes)),
        zw(base + layout.blocks * kLanes),
        scale(reinterpret_cast<float*>(zw + layout.blocks * kLanes)),
        bias(scale + layout.blocks * kLanes) {}
};

template <int64_t kLanes, bool kWords> size_t wide_packed_bytes(const DepthwiseI8Args& args) {
  if (!fits<kLanes, kWords>(args)) return packed_bytes(args);
  const Layout<kLanes> layout(args);
  const int64_t weight = sizeof(typename Wide<kLanes, kWords>::Weight);
  return static_cast<size_t>(layout.blocks * (layout.groups * 4 * weight + 16) * kLanes);
}

template <int64_t kLanes, bool kWords> size_t wide_scratch_bytes(const DepthwiseI8Args& args) {
  if (!fits<kLanes, kWords>(args)) return 0;
  return static_cast<size_t>(args.window.height * Layout<kLanes>(args).row_bytes + kLanes);
}

// Lane of the element that unpacking bytes, then pairs, puts at dword `at` of vector `vector`.
constexpr int64_t lane_of(int64_t vector, int64_t at) { return at / 4 * 16 + vector * 4 + at % 4; }

template <int64_t kLanes, bool kWords> void wide_pack(const DepthwiseI8Args& args, std::byte* to) {
  if (!fits<kLanes, kWords>(args)) return pack(args, to);
  constexpr int64_t kVector = kLanes / 4, kDword = kWords ? 2 : 4;
  const Layout<kLanes> layout(args);
  const Wide<kLanes, kWords> wide(layout, to);
  for (int64_t block = 0; block < layout.blocks; ++block) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t vector = i / kVector, at = i % kVector;
      const int64_t n = (block * kLanes + lane_of(vector, at)) % args.channels;
      // t = c + sum a (w - zw) + taps za zw, codes outside the image being za
      const int32_t zw = args.zw == nullptr ? 0 : args.zw[n];
      wide.zw[block * kLanes + i] = zw;
      wide.base[block * kLanes + i] = static_cast<int32_t>(
          static_cast<uint32_t>(args.c[n]) +
          static_cast<uint32_t>(zw) * static_cast<uint32_t>(layout.taps * args.za));
      for (int64_t tap = 0; tap < layout.groups * 4; ++tap) {
        const int64_t dword =
            ((block * layout.groups * 4 + tap) / kDword * 4 + vector) * kVector + at;
        const int32_t w = tap < layout.taps ? args.w[n * layout.taps + tap] - (kWords ? zw : 0) : 0;
        wide.weights[dword * kDword + tap % kDword] =
            static_cast<typename Wide<kLanes, kWords>::Weight>(w);
      }
      const int64_t own = (block * kLanes + i) % args.channels;
      wide.scale[block * kLanes + i] = args.m != nullptr ? args.m[own] : args.s[own];
      wide.bias[block * kLanes + i] = args.m != nullptr ? 0.0f : args.b[own];
    }
  }
}

// The rows of the image under one row of windows, padded with za, pixels by phase of the stride.
template <int64_t kLanes>
void copy_rows(const DepthwiseI8Args& args, const Layout<kLanes>& layout, int64_t oy) {
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

// Calls output_row(layout, wide, offsets of taps, oy) for every row of windows.
template <int64_t kLanes, bool kWords, class OutputRow>
inline void each_row(const DepthwiseI8Args& args, OutputRow&& output_row) {
  const Layout<kLanes> layout(args);
  const Wide<kLanes, kWords> wide(layout, const_cast<std::byte*>(args.packed));
  int64_t offsets[kMostTaps] = {};
  for (int64_t tap = 0; tap < layout.taps; ++tap) {
    const int64_t x = tap % args.window.width * args.window.dilation_x;
    offsets[tap] = tap / args.window.width * layout.row_bytes +
                   x % args.window.stride_x * layout.phase_bytes +
                   x / args.window.stride_x * args.channels;
  }
  for (int64_t oy = args.first_row; oy < args.first_row + args.rows; ++oy) {
    copy_rows(args, layout, oy);
    output_row(layout, wide, offsets, oy);
  }
}

}  // namespace
}  // namespace repquant::runtime
