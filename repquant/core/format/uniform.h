#pragma once
// Uniform codes and requantization: the scalar laws every executor shares. One multiplication by a
// stored inverse, rounding half to even, clamping first. Nothing here calls libm; all of it assumes
// the default rounding mode (nearest even) and no fast-math.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "repquant/core/error.h"
#include "repquant/core/quant_spec.h"

namespace repquant {

// min(max(v, lo), hi); NaN gives lo.
inline float clampf(float v, float lo, float hi) {
  const float raised = v > lo ? v : lo;
  return raised < hi ? raised : hi;
}

// condition ? a : b by bit masks, which compilers vectorise without relaxed float rules.
inline float select(bool condition, float a, float b) {
  const int32_t mask = -static_cast<int32_t>(condition);
  return std::bit_cast<float>((std::bit_cast<int32_t>(a) & mask) |
                              (std::bit_cast<int32_t>(b) & ~mask));
}

// Half to even, for |v| <= 2^22: adding 1.5 2^23 leaves no fraction bits.
inline float round_small(float v) {
  constexpr float magic = 12582912.0f;
  return (v + magic) - magic;
}

// Half to even, |v| < 2^31.
inline int32_t round_half_even(float v) {
  if (!(std::fabs(v) < 4194304.0f)) {
    const float magic = std::copysign(8388608.0f, v);
    return static_cast<int32_t>(std::fabs(v) < 8388608.0f ? (v + magic) - magic : v);
  }
  return static_cast<int32_t>(round_small(v));
}

// Half to even, |v| < 2^51: the same trick in double.
inline double round_half_even(double v) {
  constexpr double magic = 6755399441055744.0;
  return (v + magic) - magic;
}

inline float inverse_scale(float s) { return static_cast<float>(1.0 / static_cast<double>(s)); }

// Zero points of the two functions below: |lo - zero|, |hi - zero| <= 2^22.
constexpr int32_t kMaxZeroPoint = (1 << 22) - 512;

// The code of a value that is already in units of one step.
inline int32_t quantize_scaled(float v, int32_t zero, int32_t lo, int32_t hi) {
  const float clamped = clampf(v, static_cast<float>(lo - zero), static_cast<float>(hi - zero));
  return static_cast<int32_t>(round_small(clamped)) + zero;
}

// q = rne(clampf(x*inv, lo-zero, hi-zero)) + zero.
inline int32_t quantize_uniform(float x, float inv, int32_t zero, int32_t lo, int32_t hi) {
  return quantize_scaled(x * inv, zero, lo, hi);
}

inline float dequantize_uniform(int32_t q, float s, int32_t zero) {
  return s * static_cast<float>(q - zero);
}

// Codes from an exact integer sum: one conversion, one multiplication.
inline int32_t requantize(int32_t t, float m, int32_t zero, int32_t lo, int32_t hi) {
  return quantize_scaled(static_cast<float>(t) * m, zero, lo, hi);
}
inline int32_t requantize(int64_t t, float m, int32_t zero, int32_t lo, int32_t hi) {
  return quantize_scaled(static_cast<float>(t) * m, zero, lo, hi);
}

// m[n] of a code output: sx*sw/sy in double, rounded once.
inline float requantize_multiplier(float sx, float sw, float sy) {
  return static_cast<float>(static_cast<double>(sx) * static_cast<double>(sw) /
                            static_cast<double>(sy));
}
// s[n] of a float output: sx*sw, rounded once.
inline float product_scale(float sx, float sw) {
  return static_cast<float>(static_cast<double>(sx) * static_cast<double>(sw));
}

// Equal to std::fmaf on every input, but inline and vectorisable without FMA instructions: the
// product is exact in double, the sum is rounded to odd, the conversion then rounds once.
inline float fused_multiply_add(float a, float b, float c) {
  const double p = static_cast<double>(a) * static_cast<double>(b);
  const double wide = static_cast<double>(c);
  const double sum = p + wide;
  const double back = sum - p;
  const double lost = (p - (sum - back)) + (wide - back);
  const int64_t bits = std::bit_cast<int64_t>(sum);
  const int64_t inexact = static_cast<int64_t>((lost > 0.0) | (lost < 0.0)) & ~bits & 1;
  const int64_t inward = -static_cast<int64_t>((lost > 0.0) != (sum > 0.0));
  return static_cast<float>(std::bit_cast<double>(bits + ((inexact ^ inward) - inward)));
}

// y = fmaf(float(t), s, b), the float output of a linear step.
inline float linear_output(int32_t t, float s, float b) {
  return fused_multiply_add(static_cast<float>(t), s, b);
}

struct CodeRange {
  int32_t lo = 0, hi = 255;
  int32_t count() const { return hi - lo + 1; }
  bool operator==(const CodeRange&) const = default;
};

inline CodeRange code_range(int bits, const Uniform& format) {
  REPQUANT_CHECK(bits >= 2 && bits <= 8);
  if (!format.symmetric) return {0, (1 << bits) - 1};
  const int32_t high = (1 << (bits - 1)) - 1;
  return {format.narrow ? -high : -high - 1, high};
}

struct UniformParams {
  float scale = 1.0f;
  int32_t zero = 0;
  bool operator==(const UniformParams&) const = default;
};

namespace format_detail {
inline void require_range(double lo, double hi) {
  if (!(std::isfinite(lo) && std::isfinite(hi) && lo <= hi)) {
    throw Error(ErrorCode::kInvalidArgument,
                "quantize: range: expected finite bounds in order, got [" + std::to_string(lo) +
                    ", " + std::to_string(hi) + "]");
  }
}
}  // namespace format_detail

// s = max((u-l)/N, 1e-8 max(1,|l|,|u|)) in double, rounded once; z = rne(-l/s) with the rounded s.
// With include_zero the range is widened to contain 0 and z lies in [0, N]. Without it, s is also
// at least max(|l|,|u|)/2^21, so that the zero point stays where the float law is exact. Throws
// kInvalidArgument for bounds that are not finite or out of order.
inline UniformParams uniform_from_range(double lo, double hi, int bits, bool include_zero) {
  REPQUANT_CHECK(bits >= 2 && bits <= 8);
  format_detail::require_range(lo, hi);
  if (include_zero) {
    lo = std::min(lo, 0.0);
    hi = std::max(hi, 0.0);
  }
  const double codes = (1 << bits) - 1;
  const double largest = std::max(std::fabs(lo), std::fabs(hi));
  double scale = std::max((hi - lo) / codes, 1e-8 * std::max(1.0, largest));
  if (!include_zero) scale = std::max(scale, largest / 2097152.0);
  UniformParams params;
  params.scale = static_cast<float>(scale);
  const double zero = round_half_even(-lo / static_cast<double>(params.scale));
  params.zero = static_cast<int32_t>(include_zero ? std::clamp(zero, 0.0, codes) : zero);
  return params;
}

// s = max|x| / (2^(b-1) - 1), narrow or not.
inline float symmetric_scale(double max_abs, int bits, [[maybe_unused]] bool narrow) {
  REPQUANT_CHECK(bits >= 2 && bits <= 8);
  format_detail::require_range(0.0, max_abs);
  const double high = (1 << (bits - 1)) - 1;
  return static_cast<float>(std::max(max_abs / high, 1e-8 * std::max(1.0, max_abs)));
}

}  // namespace repquant
