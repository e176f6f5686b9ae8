#pragma once
// The functions of core/format/elementary.h on vectors. The file that includes this names the Pack
// and its operations (using namespace float256 or float512) and defines REPQUANT_INLINE_WIDE.
#include "repquant/core/format/functions.h"

namespace repquant::runtime {
namespace {

template <int N> REPQUANT_INLINE_WIDE Pack<N> erf(Pack<N> x) {
  const Pack<N> t = smaller(absolute(x), constant<N>(4.0f)), u = mul(t, t);
  Pack<N> p = constant<N>(0x1.4ae4dap-14f);
  p = horner(p, u, -0x1.a485f0p-11f);
  p = horner(p, u, 0x1.5419f6p-8f);
  p = horner(p, u, -0x1.b7fbb4p-6f);
  p = horner(p, u, 0x1.ce2d20p-4f);
  p = horner(p, u, -0x1.81273ep-2f);
  p = horner(p, u, 0x1.20dd74p+0f);
  const Pack<N> small = mul(t, p);
  Pack<N> g = constant<N>(-0x1.852d36p-13f);
  g = horner(g, t, 0x1.814ccep-9f);
  g = horner(g, t, -0x1.65421cp-6f);
  g = horner(g, t, 0x1.a60a80p-4f);
  g = horner(g, t, 0x1.46c584p-1f);
  g = horner(g, t, 0x1.2085b2p+0f);
  g = horner(g, t, 0x1.72e748p-12f);
  const Pack<N> large = sub(constant<N>(1.0f), exp(negated(g)));
  return keep_nan(with_sign(where_less(t, constant<N>(1.0f), small, large), x), x);
}

template <int N> REPQUANT_INLINE_WIDE Pack<N> tanh(Pack<N> x) {
  const Pack<N> t = smaller(absolute(x), constant<N>(20.0f)), u = mul(t, t);
  Pack<N> p = constant<N>(-0x1.6d8e0cp-8f);
  p = horner(p, u, 0x1.500a14p-6f);
  p = horner(p, u, -0x1.b7dbc8p-5f);
  p = horner(p, u, 0x1.1103a0p-3f);
  p = horner(p, u, -0x1.55551cp-2f);
  const Pack<N> small = add(t, mul(mul(t, u), p));
  const Pack<N> grown = add(exp(add(t, t)), constant<N>(1.0f));
  const Pack<N> large = sub(constant<N>(1.0f), div(constant<N>(2.0f), grown));
  return keep_nan(with_sign(where_less(t, constant<N>(0.625f), small, large), x), x);
}

template <int N> REPQUANT_INLINE_WIDE Pack<N> sigmoid(Pack<N> x) {
  return div(constant<N>(1.0f), add(constant<N>(1.0f), exp(negated(x))));
}

template <int N> REPQUANT_INLINE_WIDE Pack<N> bounded_below(Pack<N> x) {  // NaN stays
  return larger(constant<N>(-200.0f), x);
}

template <int N> REPQUANT_INLINE_WIDE Pack<N> half_times(Pack<N> v, Pack<N> factor) {
  return mul(mul(constant<N>(0.5f), v), add(constant<N>(1.0f), factor));
}

template <FunctionKind kKind, int N> REPQUANT_INLINE_WIDE Pack<N> value(Pack<N> x) {
  const Pack<N> rectified = where_less(constant<N>(0.0f), x, x, constant<N>(0.0f));
  if constexpr (kKind == FunctionKind::kRelu) return keep_nan(rectified, x);
  if constexpr (kKind == FunctionKind::kRelu6)
    return keep_nan(smaller(rectified, constant<N>(6.0f)), x);
  if constexpr (kKind == FunctionKind::kSigmoid) return sigmoid(x);
  if constexpr (kKind == FunctionKind::kTanh) return tanh(x);
  const Pack<N> v = bounded_below(x);
  if constexpr (kKind == FunctionKind::kGeluErf)
    return half_times(v, erf(mul(v, constant<N>(0.707106781f))));
  if constexpr (kKind == FunctionKind::kGeluTanh) {
    const Pack<N> cube = mul(mul(v, v), v);
    return half_times(
        v, tanh(mul(constant<N>(0.797884561f), add(v, mul(constant<N>(0.044715f), cube)))));
  }
  return mul(v, sigmoid(v));  // SiLU
}

}  // namespace
}  // namespace repquant::runtime
