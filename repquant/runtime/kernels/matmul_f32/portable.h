#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
#include <algorithm>
#include <cmath>

#include "repquant/runtime/kernels/matmul_f32/matmul_f32.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kMatmulColumns = 32;

[[maybe_unused]] REPQUANT_ROW void run(const MatmulF32Args& args) noexcept {
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.depth;
    for (int64_t first = 0; first < args.columns; first += kMatmulColumns) {
      const int64_t count = std::min(kMatmulColumns, args.columns - first);
      float sums[kMatmulColumns] = {};
      const float* w = args.w + first;
      if (count == kMatmulColumns) {
        for (int64_t k = 0; k < args.depth; ++k, w += args.columns) {
          for (int64_t n = 0; n < kMatmulColumns; ++n) sums[n] = std::fmaf(x[k], w[n], sums[n]);
        }
      } else {
        for (int64_t k = 0; k < args.depth; ++k, w += args.columns) {
          for (int64_t n = 0; n < count; ++n) sums[n] = std::fmaf(x[k], w[n], sums[n]);
        }
      }
      float* out = args.out + row * args.columns + first;
      for (int64_t n = 0; n < count; ++n)
        out[n] = args.bias == nullptr ? sums[n] : sums[n] + args.bias[first + n];
    }
  }
}

}  // namespace

}  // namespace repquant::runtime
