#pragma once
// Twin-uniform codes (PTQ4ViT, arXiv 2111.12293): one code bit selects one of two uniform grids,
// and each value uses exactly one. M = 2^(b-1) - 1.
//   softmax: scale = high step D_h (1/M for probabilities), low step D_l = D_h 2^-m. Code = index
//            0 .. M, plus M + 1 on the high grid; the grid nearer to x wins, a tie takes the low.
//   GELU:    scale = step of the codes >= 0; codes < 0 have step 0.16997124 / 2^(b-1).
#include <cmath>
#include <cstdint>

#include "repquant/core/format/uniform.h"

namespace repquant {

constexpr double kGeluMinimum = 0.16997124;  // of -gelu(x)

inline float twin_gelu_negative_step(int bits) {
  return static_cast<float>(kGeluMinimum / static_cast<double>(1 << (bits - 1)));
}
inline float twin_low_step(float high_step, int m) { return std::ldexp(high_step, -m); }

inline int32_t twin_softmax_encode(float x, float high_step, int m, int bits) {
  const int32_t top = (1 << (bits - 1)) - 1;
  const float low_step = twin_low_step(high_step, m);
  const int32_t low = quantize_uniform(x, inverse_scale(low_step), 0, 0, top);
  const int32_t high = quantize_uniform(x, inverse_scale(high_step), 0, 0, top);
  const double low_error = std::fabs(static_cast<double>(low_step) * low - static_cast<double>(x));
  const double high_error =
      std::fabs(static_cast<double>(high_step) * high - static_cast<double>(x));
  return high_error < low_error ? high + top + 1 : low;
}

inline float twin_softmax_decode(int32_t code, float high_step, int m, int bits) {
  const int32_t top = (1 << (bits - 1)) - 1;
  return code > top ? high_step * static_cast<float>(code - top - 1)
                    : twin_low_step(high_step, m) * static_cast<float>(code);
}

// Two integer accumulators in units of the low step.
inline int64_t twin_combine(int64_t low, int64_t high, int m) {
  return low + high * (int64_t{1} << m);
}

inline int32_t twin_gelu_encode(float x, float positive_step, int bits) {
  const int32_t half = 1 << (bits - 1);
  return x < 0.0f ? quantize_uniform(x, inverse_scale(twin_gelu_negative_step(bits)), 0, -half, 0)
                  : quantize_uniform(x, inverse_scale(positive_step), 0, 0, half - 1);
}

inline float twin_gelu_decode(int32_t code, float positive_step, int bits) {
  return static_cast<float>(code) * (code < 0 ? twin_gelu_negative_step(bits) : positive_step);
}

}  // namespace repquant
