#pragma once
// Power codes (PowerQuant, arXiv 2301.09858; NUPES, arXiv 2308.05600). With Q = 2^(b-1) - 1 and
// M = Q scale: q = sign(w) rne(Q (|w|/M)^a), w^ = sign(q) M (|q|/Q)^(1/a). a = 1 is symmetric
// narrow uniform, code for code.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "repquant/core/format/uniform.h"

namespace repquant {

inline int32_t power_encode(float w, float scale, double exponent, int bits) {
  const int32_t top = (1 << (bits - 1)) - 1;
  const float inv = inverse_scale(scale);
  if (exponent == 1.0) return quantize_uniform(w, inv, 0, -top, top);
  if (w != w) return -top;
  const double steps = std::min(std::fabs(static_cast<double>(w * inv)), static_cast<double>(top));
  const double code = round_half_even(top * std::pow(steps / top, exponent));
  return static_cast<int32_t>(std::copysign(std::min(code, static_cast<double>(top)), w));
}

inline float power_decode(int32_t code, float scale, double exponent, int bits) {
  if (exponent == 1.0) return dequantize_uniform(code, scale, 0);
  const double top = (1 << (bits - 1)) - 1;
  const double size = std::pow(std::fabs(static_cast<double>(code)) / top, 1.0 / exponent);
  return static_cast<float>(std::copysign(top * static_cast<double>(scale) * size, code));
}

// Values of the codes -2^(b-1) .. 2^(b-1)-1 (the lowest is never produced), the decoding table.
inline std::vector<float> power_table(float scale, double exponent, int bits) {
  std::vector<float> table;
  for (int32_t q = -(1 << (bits - 1)); q < 1 << (bits - 1); ++q) {
    table.push_back(power_decode(q, scale, exponent, bits));
  }
  return table;
}

}  // namespace repquant
