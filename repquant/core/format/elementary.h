#pragma once
// exp, erf, tanh, sigmoid and the activations built on them: one fixed definition each, separate
// multiplications and additions in the written order, so that every instruction set gives equal
// bits. No branches, so loops over arrays vectorise. Error bounds (tested): exp 2 ulp; erf, tanh,
// sigmoid 1.5e-7 absolute. Polynomials are minimax on the stated intervals. NaN in, NaN out.
#include <bit>
#include <cmath>
#include <cstdint>

#include "repquant/core/format/uniform.h"

namespace repquant {

// x = n ln2 + r, |r| <= 0.3466, ln2 in two constants of which n * first is exact;
// e^r = 1 + r + r^2 P(r); scaled by 2^n in two exact steps, so that results below 2^-126 round
// once.
inline float exp_f32(float x) {
  const float raised = select(x > -104.0f, x, -104.0f);  // NaN: any number
  const float safe = select(raised < 89.0f, raised, 89.0f);
  const float n = round_small(safe * 1.44269504f);
  const float r = (safe - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 0x1.6db592p-10f;
  p = p * r + 0x1.123c5ap-7f;
  p = p * r + 0x1.55545cp-5f;
  p = p * r + 0x1.55548ep-3f;
  p = p * r + 0.5f;
  const float e = (p * (r * r) + r) + 1.0f;
  const int32_t exponent = static_cast<int32_t>(n);
  const int32_t half = exponent >> 1;
  const float first = std::bit_cast<float>((half + 127) << 23);
  const float second = std::bit_cast<float>((exponent - half + 127) << 23);
  const float y = (e * first) * second;
  return select(x == x, y, x);
}

// |x| < 1: x P(x^2). Else 1 - exp(-G(|x|)), G the minimax of -log erfc on [1, 4].
inline float erf_f32(float x) {
  const float size = std::fabs(x);
  const float t = select(size < 4.0f, size, 4.0f);
  const float u = t * t;
  float p = 0x1.4ae4dap-14f;
  p = p * u + -0x1.a485f0p-11f;
  p = p * u + 0x1.5419f6p-8f;
  p = p * u + -0x1.b7fbb4p-6f;
  p = p * u + 0x1.ce2d20p-4f;
  p = p * u + -0x1.81273ep-2f;
  p = p * u + 0x1.20dd74p+0f;
  const float small = t * p;
  float g = -0x1.852d36p-13f;
  g = g * t + 0x1.814ccep-9f;
  g = g * t + -0x1.65421cp-6f;
  g = g * t + 0x1.a60a80p-4f;
  g = g * t + 0x1.46c584p-1f;
  g = g * t + 0x1.2085b2p+0f;
  g = g * t + 0x1.72e748p-12f;
  const float large = 1.0f - exp_f32(-g);
  const float y = std::copysign(select(t < 1.0f, small, large), x);
  return select(x == x, y, x);
}

// |x| < 0.625: x + x^3 P(x^2). Else 1 - 2/(exp(2|x|) + 1).
inline float tanh_f32(float x) {
  const float size = std::fabs(x);
  const float t = select(size < 20.0f, size, 20.0f);
  const float u = t * t;
  float p = -0x1.6d8e0cp-8f;
  p = p * u + 0x1.500a14p-6f;
  p = p * u + -0x1.b7dbc8p-5f;
  p = p * u + 0x1.1103a0p-3f;
  p = p * u + -0x1.55551cp-2f;
  const float small = t + (t * u) * p;
  const float large = 1.0f - 2.0f / (exp_f32(t + t) + 1.0f);
  const float y = std::copysign(select(t < 0.625f, small, large), x);
  return select(x == x, y, x);
}

inline float sigmoid_f32(float x) { return 1.0f / (1.0f + exp_f32(-x)); }

inline float relu_f32(float x) { return x > 0.0f ? x : (x == x ? 0.0f : x); }

inline float relu6_f32(float x) {
  const float y = relu_f32(x);
  return y < 6.0f ? y : (y == y ? 6.0f : y);
}

namespace format_detail {
inline float bounded_below(float x) {
  return select(x < -200.0f, -200.0f, x);
}  // -inf * 0 would be NaN
}  // namespace format_detail

// (0.5 x) (1 + erf(x/sqrt2))
inline float gelu_erf_f32(float x) {
  const float v = format_detail::bounded_below(x);
  return (0.5f * v) * (1.0f + erf_f32(v * 0.707106781f));
}

// (0.5 x) (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
inline float gelu_tanh_f32(float x) {
  const float v = format_detail::bounded_below(x);
  const float inner = 0.797884561f * (v + 0.044715f * ((v * v) * v));
  return (0.5f * v) * (1.0f + tanh_f32(inner));
}

inline float silu_f32(float x) {
  const float v = format_detail::bounded_below(x);
  return v * sigmoid_f32(v);
}

// ---- double versions, for tables and references -------------------------------------------------
inline double sigmoid_exact(double x) { return 1.0 / (1.0 + std::exp(-x)); }
inline double tanh_exact(double x) { return std::tanh(x); }
inline double relu_exact(double x) { return x > 0.0 ? x : 0.0; }
inline double relu6_exact(double x) { return x > 0.0 ? (x < 6.0 ? x : 6.0) : 0.0; }
inline double silu_exact(double x) { return x * sigmoid_exact(x); }
inline double gelu_erf_exact(double x) { return 0.5 * x * std::erfc(-x * 0.70710678118654752440); }
inline double gelu_tanh_exact(double x) {
  return 0.5 * x * (1.0 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}

}  // namespace repquant
