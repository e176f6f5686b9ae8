#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
#include <algorithm>

#include "repquant/core/format/uniform.h"
#include "repquant/runtime/kernels/depthwise_i8/depthwise_i8.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kChannels = 32;  // a block of accumulators

// Taps [first, last) of a window that lie inside an axis of `size`.
struct Taps {
  int64_t first, last;
};
inline Taps inside(int64_t origin, int64_t dilation, int64_t taps, int64_t size) {
  Taps found{0, taps};
  while (found.first < taps && origin + found.first * dilation < 0) ++found.first;
  while (found.last > found.first && origin + (found.last - 1) * dilation >= size) --found.last;
  return found;
}

// Weights [taps][channels] without their zero points, then c + za sum w [channels].
struct Packed {
  int32_t *weights, *base;
  Packed(const DepthwiseI8Args& args, std::byte* at)
      : weights(reinterpret_cast<int32_t*>(at)),
        base(weights + args.window.height * args.window.width * args.channels) {}
};

inline size_t packed_bytes(const DepthwiseI8Args& args) {
  return static_cast<size_t>((args.window.height * args.window.width + 1) * args.channels) * 4;
}

inline void pack(const DepthwiseI8Args& args, std::byte* to) {
  const Packed packed(args, to);
  const int64_t taps = args.window.height * args.window.width, n = args.channels;
  for (int64_t channel = 0; channel < n; ++channel) {
    uint32_t sum = 0;
    for (int64_t k = 0; k < taps; ++k) {
      const int32_t value = args.w[channel * taps + k];
      sum += static_cast<uint32_t>(value);
      packed.weights[k * n + channel] = value - (args.zw == nullptr ? 0 : args.zw[channel]);
    }
    packed.base[channel] = static_cast<int32_t>(static_cast<uint32_t>(args.c[channel]) +
                                                static_cast<uint32_t>(args.za) * sum);
  }
}

template <bool kWhole>
inline void block(const DepthwiseI8Args& args, Taps ys, Taps xs, int64_t top, int64_t left,
                  int64_t channel, int64_t count, int64_t at) {
  const int64_t channels = args.channels, n = kWhole ? kChannels : count;
  int32_t acc[kChannels];
  const Packed packed(args, const_cast<std::byte*>(args.packed));
  for (int64_t c = 0; c < n; ++c) acc[c] = packed.base[channel + c];
  const int32_t za = args.za;
  for (int64_t ky = ys.first; ky < ys.last; ++ky) {
    for (int64_t kx = xs.first; kx < xs.last; ++kx) {
      const int64_t y = top + ky * args.window.dilation_y, x = left + kx * args.window.dilation_x;
      const uint8_t* __restrict a = args.image + (y * args.width + x) * channels + channel;
      const int32_t* __restrict w =
          packed.weights + (ky * args.window.width + kx) * channels + channel;
      for (int64_t c = 0; c < n; ++c) {
        acc[c] =
            static_cast<int32_t>(static_cast<uint32_t>(acc[c]) +
                                 static_cast<uint32_t>(a[c] - za) * static_cast<uint32_t>(w[c]));
      }
    }
  }
  if (args.codes != nullptr) {
    const float* __restrict m = args.m + channel;
    uint8_t* __restrict out = args.codes + at + channel;
    const int32_t zero = args.zero, lo = args.lo, hi = args.hi;
    for (int64_t c = 0; c < n; ++c)
      out[c] = static_cast<uint8_t>(requantize(acc[c], m[c], zero, lo, hi));
    return;
  }
  const float *s = args.s + channel, *b = args.b + channel;
  float* out = args.out + at + channel;
  for (int64_t c = 0; c < n; ++c) out[c] = linear_output(acc[c], s[c], b[c]);
}

[[maybe_unused]] size_t no_scratch(const DepthwiseI8Args&) { return 0; }

[[maybe_unused]] REPQUANT_ROW void run(const DepthwiseI8Args& args) noexcept {
  const Window& w = args.window;
  for (int64_t oy = args.first_row; oy < args.first_row + args.rows; ++oy) {
    const int64_t top = oy * w.stride_y - w.top;
    const Taps ys = inside(top, w.dilation_y, w.height, args.height);
    for (int64_t ox = 0; ox < args.columns; ++ox) {
      const int64_t left = ox * w.stride_x - w.left;
      const Taps xs = inside(left, w.dilation_x, w.width, args.width);
      const int64_t at = (oy * args.columns + ox) * args.channels;
      int64_t channel = 0;
      for (; channel + kChannels <= args.channels; channel += kChannels)
        block<true>(args, ys, xs, top, left, channel, kChannels, at);
      if (channel < args.channels)
        block<false>(args, ys, xs, top, left, channel, args.channels - channel, at);
    }
  }
}

}  // namespace
}  // namespace repquant::runtime
