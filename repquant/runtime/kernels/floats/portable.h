#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file, whose REPQUANT_ROW sets the target and inlines all below it.
#include "repquant/core/format/reduce.h"
#include "repquant/runtime/kernels/floats/floats.h"

namespace repquant::runtime {
namespace {

// Blocks pass through a local array: the output may be an operand, which would keep the compiler
// from using vectors.
template <BinaryKind kKind, int kA, int kB> void binary_steps(const BroadcastArgs& args) {
  constexpr int64_t kBlock = 16;
  const float *a = args.a, *b = args.b;
  float* out = args.out;
  const int64_t count = args.count;
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    float block[kBlock];
    for (int64_t j = 0; j < kBlock; ++j)
      block[j] = binary_value<kKind>(a[kA * (i + j)], b[kB * (i + j)]);
    for (int64_t j = 0; j < kBlock; ++j) out[i + j] = block[j];
  }
  for (; i < count; ++i) out[i] = binary_value<kKind>(a[kA * i], b[kB * i]);
}

template <BinaryKind kKind> void binary_kind(const BroadcastArgs& args) {
  if (args.a_step == 0) return binary_steps<kKind, 0, 1>(args);
  if (args.b_step == 0) return binary_steps<kKind, 1, 0>(args);
  binary_steps<kKind, 1, 1>(args);
}

[[maybe_unused]] REPQUANT_ROW void binary(const BroadcastArgs& args) noexcept {
  switch (args.kind) {
    case BinaryKind::kAdd:
      return binary_kind<BinaryKind::kAdd>(args);
    case BinaryKind::kSub:
      return binary_kind<BinaryKind::kSub>(args);
    case BinaryKind::kReverseSub:
      return binary_kind<BinaryKind::kReverseSub>(args);
    case BinaryKind::kMul:
      return binary_kind<BinaryKind::kMul>(args);
    case BinaryKind::kDiv:
      return binary_kind<BinaryKind::kDiv>(args);
    case BinaryKind::kReverseDiv:
      return binary_kind<BinaryKind::kReverseDiv>(args);
    case BinaryKind::kMax:
      return binary_kind<BinaryKind::kMax>(args);
    case BinaryKind::kMin:
      return binary_kind<BinaryKind::kMin>(args);
  }
}

template <ReduceKind kKind> float join_lanes(float* lane) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) lane[l] = reduce_join<kKind>(lane[l], lane[l + width]);
  }
  return lane[0];
}

template <ReduceKind kKind> void reduce_columns(const ReduceArgs& args) {
  float lanes[kLanes][kReduceBlock];
  const int64_t columns = args.columns;
  for (auto& lane : lanes)
    for (float& v : lane) v = reduce_start<kKind>();
  for (int64_t i = 0; i < args.length; ++i) {
    float* lane = lanes[i % kLanes];
    const float* x = args.x + i * args.stride;
    for (int64_t j = 0; j < columns; ++j) lane[j] = reduce_element<kKind>(lane[j], x[j]);
  }
  for (int64_t j = 0; j < columns; ++j) {
    float column[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) column[l] = lanes[l][j];
    args.out[j] = reduce_end<kKind>(join_lanes<kKind>(column), args.length);
  }
}

template <ReduceKind kKind> void reduce_line(const ReduceArgs& args) {
  float lane[kLanes];
  for (float& v : lane) v = reduce_start<kKind>();
  const float* x = args.x;
  int64_t i = 0;
  for (; i + kLanes <= args.length; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lane[l] = reduce_element<kKind>(lane[l], x[i + l]);
  for (int64_t l = 0; i < args.length; ++i, ++l) lane[l] = reduce_element<kKind>(lane[l], x[i]);
  args.out[0] = reduce_end<kKind>(join_lanes<kKind>(lane), args.length);
}

#define REPQUANT_EACH_REDUCTION(function)            \
  switch (args.kind) {                               \
    case ReduceKind::kMean:                          \
      return function<ReduceKind::kMean>(args);      \
    case ReduceKind::kSum:                           \
      return function<ReduceKind::kSum>(args);       \
    case ReduceKind::kMax:                           \
      return function<ReduceKind::kMax>(args);       \
    case ReduceKind::kMin:                           \
      return function<ReduceKind::kMin>(args);       \
    case ReduceKind::kL2:                            \
      return function<ReduceKind::kL2>(args);        \
    case ReduceKind::kSumSquare:                     \
      return function<ReduceKind::kSumSquare>(args); \
  }

[[maybe_unused]] REPQUANT_ROW void reduce(const ReduceArgs& args) noexcept {
  REPQUANT_EACH_REDUCTION(reduce_columns)
}
[[maybe_unused]] REPQUANT_ROW void reduce_row(const ReduceArgs& args) noexcept {
  REPQUANT_EACH_REDUCTION(reduce_line)
}

inline uint8_t larger(uint8_t a, uint8_t b) { return a > b ? a : b; }
inline float larger(float a, float b) { return max_f32(a, b); }

// Channels side by side, window by window.
template <bool kAverage, class T>
void pool_row(const PoolArgs& args, const T* image, T* __restrict out) {
  const Window& w = args.window;
  const int64_t channels = args.channels;
  const int64_t top = args.row * w.stride_y - w.top;
  for (int64_t ox = 0; ox < args.columns; ++ox, out += channels) {
    const int64_t left = ox * w.stride_x - w.left;
    int64_t count = 0;
    for (int64_t y = top < 0 ? 0 : top; y < top + w.height && y < args.height; ++y) {
      for (int64_t x = left < 0 ? 0 : left; x < left + w.width && x < args.width; ++x, ++count) {
        const T* from = image + (y * args.width + x) * channels;
        if (count == 0) {
          // 0 + x: a sum of -0 alone is 0.
          for (int64_t c = 0; c < channels; ++c) out[c] = kAverage ? T{0} + from[c] : from[c];
        } else {
          for (int64_t c = 0; c < channels; ++c)
            out[c] = kAverage ? out[c] + from[c] : larger(out[c], from[c]);
        }
      }
    }
    if constexpr (kAverage) {
      const auto divisor = static_cast<float>(args.include_pad ? w.height * w.width : count);
      for (int64_t c = 0; c < channels; ++c) out[c] = out[c] / divisor;
    }
  }
}

[[maybe_unused]] REPQUANT_ROW void pool(const PoolArgs& args) noexcept {
  if (args.codes != nullptr) return pool_row<false>(args, args.codes, args.code_out);
  args.average ? pool_row<true>(args, args.x, args.out) : pool_row<false>(args, args.x, args.out);
}

}  // namespace

}  // namespace repquant::runtime
