#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
#include "repquant/core/format/reduce.h"
#include "repquant/core/format/uniform.h"
#include "repquant/runtime/kernels/norm/norm.h"

namespace repquant::runtime {
namespace {

template <class Value> void write_row(const NormArgs& args, int64_t row, const Value& value) {
  const int64_t channels = args.channels;
  if (args.codes != nullptr) {
    uint8_t* __restrict codes = args.codes + row * channels;
    const int32_t zero = args.zero, lo = args.lo, hi = args.hi;
    for (int64_t i = 0; i < channels; ++i) {
      codes[i] = static_cast<uint8_t>(quantize_scaled(value(i), zero, lo, hi));
    }
    return;
  }
  float* out = args.out + row * channels;
  for (int64_t i = 0; i < channels; ++i) out[i] = value(i);
}

std::span<const float> row_of(const NormArgs& args, int64_t row) {
  return {args.x + row * args.channels, static_cast<size_t>(args.channels)};
}

[[maybe_unused]] REPQUANT_ROW void layer_norm(const NormArgs& args) noexcept {
  const float *gain = args.gain, *beta = args.beta;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.channels;
    const RowStatistics statistics = layer_norm_statistics(row_of(args, row), args.eps);
    write_row(args, row,
              [=](int64_t i) { return layer_norm_value(x[i], statistics, gain[i], beta[i]); });
  }
}

[[maybe_unused]] REPQUANT_ROW void rms_norm(const NormArgs& args) noexcept {
  const float *gain = args.gain, *beta = args.beta;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.channels;
    const float rstd = rms_norm_rstd(row_of(args, row), args.eps);
    if (beta != nullptr) {
      write_row(args, row, [=](int64_t i) { return (x[i] * rstd) * gain[i] + beta[i]; });
    } else {
      write_row(args, row, [=](int64_t i) { return (x[i] * rstd) * gain[i]; });
    }
  }
}

[[maybe_unused]] REPQUANT_ROW void mean_rows(const MeanRowsArgs& args) noexcept {
  float sums[kLanes][kMeanRowsBlock] = {};
  for (int64_t row = 0; row < args.rows; ++row) {
    float* lane = sums[row % kLanes];
    const float* x = args.x + row * args.channels + args.first;
    for (int64_t c = 0; c < args.count; ++c) lane[c] += x[c];
  }
  const auto height = static_cast<float>(args.rows);
  for (int64_t c = 0; c < args.count; ++c) {
    float lanes[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] = sums[l][c];
    args.out[args.first + c] = combine_lanes(lanes) / height;
  }
}

}  // namespace

}  // namespace repquant::runtime
