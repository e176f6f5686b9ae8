#pragma once
// Shared by the portable rows of gemm_i8 and attention_i8: blocks of int16 dot products in a form
// that baseline compilers turn into pairwise multiply-add (pmaddwd, smlal).
#include <cstdint>

namespace repquant::runtime {

inline constexpr int64_t kDotRows = 4;
inline constexpr int64_t kDotCols = 2;
inline constexpr int64_t kDotDepth = 16;  // depth is a multiple of it, padded with zeros

// acc[r][c] = sum_k a[r][k] * w[c][k], r < 4, c < 2; operands [.][depth], acc with a row stride.
inline void dot_tile(const int16_t* __restrict a, const int16_t* __restrict w, int64_t depth,
                     int32_t* __restrict acc, int64_t stride) {
  const int16_t *a0 = a, *a1 = a + depth, *a2 = a + 2 * depth, *a3 = a + 3 * depth;
  const int16_t *w0 = w, *w1 = w + depth;
  int32_t s00 = 0, s01 = 0, s10 = 0, s11 = 0, s20 = 0, s21 = 0, s30 = 0, s31 = 0;
  const int64_t whole = depth & ~(kDotDepth - 1);
  for (int64_t k = 0; k < whole; ++k) {
    s00 += a0[k] * w0[k];
    s01 += a0[k] * w1[k];
    s10 += a1[k] * w0[k];
    s11 += a1[k] * w1[k];
    s20 += a2[k] * w0[k];
    s21 += a2[k] * w1[k];
    s30 += a3[k] * w0[k];
    s31 += a3[k] * w1[k];
  }
  acc[0] = s00, acc[1] = s01;
  acc[stride] = s10, acc[stride + 1] = s11;
  acc[2 * stride] = s20, acc[2 * stride + 1] = s21;
  acc[3 * stride] = s30, acc[3 * stride + 1] = s31;
}

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace repquant::runtime
