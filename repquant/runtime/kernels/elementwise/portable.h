#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
#include "repquant/core/format/uniform.h"
#include "repquant/runtime/kernels/elementwise/elementwise.h"
#include "repquant/runtime/kernels/thresholds.h"

namespace repquant::runtime {
namespace {

[[maybe_unused]] REPQUANT_ROW void quantize(const QuantizeArgs& args) noexcept {
  const float* __restrict x = args.x;
  uint8_t* __restrict codes = args.codes;
  const float inv = args.inv;
  const int32_t zero = args.zero, lo = args.lo, hi = args.hi;
  const int64_t count = args.count;  // a local: stores of bytes may alias the arguments
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = static_cast<uint8_t>(quantize_uniform(x[i], inv, zero, lo, hi));
  }
}

[[maybe_unused]] REPQUANT_ROW void quantize_log(const QuantizeLogArgs& args) noexcept {
  if (args.levels >= kManyThresholds && args.count >= kManyValues) {
    const ThresholdBuckets coder(args.thresholds, args.levels);
    const int64_t count = coder.usable() ? args.count : 0;
    const float* x = args.x;
    uint8_t* codes = args.codes;
    const float shift = args.shift;
    for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(coder(x[i] + shift));
    if (count > 0) return;
  }
  count_thresholds<true>(args.x, args.count, args.shift, args.thresholds, args.levels, args.codes);
}

[[maybe_unused]] REPQUANT_ROW void table(const TableArgs& args) noexcept {
  const uint8_t *codes = args.codes, *entries = args.table;
  uint8_t* out = args.out;
  const int64_t count = args.count;
  for (int64_t i = 0; i < count; ++i) out[i] = entries[codes[i]];
}

[[maybe_unused]] REPQUANT_ROW void dequantize(const DequantizeArgs& args) noexcept {
  const uint8_t* __restrict codes = args.codes;
  float* __restrict out = args.out;
  const float scale = args.scale;
  const int32_t zero = args.zero;
  for (int64_t i = 0; i < args.count; ++i) out[i] = dequantize_uniform(codes[i], scale, zero);
}

[[maybe_unused]] REPQUANT_ROW void add(const BinaryArgs& args) noexcept {
  for (int64_t i = 0; i < args.count; ++i) args.out[i] = args.a[i] + args.b[i];
}

[[maybe_unused]] REPQUANT_ROW void mul(const BinaryArgs& args) noexcept {
  for (int64_t i = 0; i < args.count; ++i) args.out[i] = args.a[i] * args.b[i];
}

}  // namespace

}  // namespace repquant::runtime
