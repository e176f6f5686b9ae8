#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
#include "repquant/core/format/reduce.h"
#include "repquant/runtime/kernels/softmax/softmax.h"

namespace repquant::runtime {
namespace {

[[maybe_unused]] REPQUANT_ROW void softmax(const SoftmaxArgs& args) noexcept {
  const auto width = static_cast<size_t>(args.channels);
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t at = row * args.channels;
    softmax_row(std::span(args.x + at, width), std::span(args.out + at, width));
  }
}

[[maybe_unused]] REPQUANT_ROW void l2_norm(const SoftmaxArgs& args) noexcept {
  const auto width = static_cast<size_t>(args.channels);
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t at = row * args.channels;
    l2_norm_row(std::span(args.x + at, width), args.eps, std::span(args.out + at, width));
  }
}

}  // namespace

}  // namespace repquant::runtime
