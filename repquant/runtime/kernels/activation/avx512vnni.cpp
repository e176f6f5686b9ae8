#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include "repquant/runtime/kernels/float512.h"

namespace repquant::runtime {
namespace {

using float512::constant;
using float512::exp;
using float512::horner;

REPQUANT_INLINE512 __m512 absolute(__m512 x) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
}

// The size of y with the sign of x; NaN stays.
REPQUANT_INLINE512 __m512 signed_as(__m512 y, __m512 x) {
  const __m512i sign = _mm512_set1_epi32(static_cast<int32_t>(0x80000000u));
  const __m512 both = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(
      sign, _mm512_castps_si512(x), _mm512_castps_si512(y), 0xca));  // sign ? x : y
  return _mm512_mask_mov_ps(both, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

REPQUANT_INLINE512 __m512 erf(__m512 x) {
  const __m512 t = _mm512_min_ps(absolute(x), constant(4.0f)), u = _mm512_mul_ps(t, t);
  __m512 p = constant(0x1.4ae4dap-14f);
  p = horner(p, u, -0x1.a485f0p-11f);
  p = horner(p, u, 0x1.5419f6p-8f);
  p = horner(p, u, -0x1.b7fbb4p-6f);
  p = horner(p, u, 0x1.ce2d20p-4f);
  p = horner(p, u, -0x1.81273ep-2f);
  p = horner(p, u, 0x1.20dd74p+0f);
  const __m512 small = _mm512_mul_ps(t, p);
  __m512 g = constant(-0x1.852d36p-13f);
  g = horner(g, t, 0x1.814ccep-9f);
  g = horner(g, t, -0x1.65421cp-6f);
  g = horner(g, t, 0x1.a60a80p-4f);
  g = horner(g, t, 0x1.46c584p-1f);
  g = horner(g, t, 0x1.2085b2p+0f);
  g = horner(g, t, 0x1.72e748p-12f);
  const __m512 large = _mm512_sub_ps(constant(1.0f), exp(_mm512_xor_ps(g, constant(-0.0f))));
  return signed_as(
      _mm512_mask_mov_ps(large, _mm512_cmp_ps_mask(t, constant(1.0f), _CMP_LT_OQ), small), x);
}

REPQUANT_INLINE512 __m512 tanh(__m512 x) {
  const __m512 t = _mm512_min_ps(absolute(x), constant(20.0f)), u = _mm512_mul_ps(t, t);
  __m512 p = constant(-0x1.6d8e0cp-8f);
  p = horner(p, u, 0x1.500a14p-6f);
  p = horner(p, u, -0x1.b7dbc8p-5f);
  p = horner(p, u, 0x1.1103a0p-3f);
  p = horner(p, u, -0x1.55551cp-2f);
  const __m512 small = _mm512_add_ps(t, _mm512_mul_ps(_mm512_mul_ps(t, u), p));
  const __m512 grown = _mm512_add_ps(exp(_mm512_add_ps(t, t)), constant(1.0f));
  const __m512 large = _mm512_sub_ps(constant(1.0f), _mm512_div_ps(constant(2.0f), grown));
  return signed_as(
      _mm512_mask_mov_ps(large, _mm512_cmp_ps_mask(t, constant(0.625f), _CMP_LT_OQ), small), x);
}

REPQUANT_INLINE512 __m512 sigmoid(__m512 x) {
  const __m512 e = exp(_mm512_xor_ps(x, constant(-0.0f)));
  return _mm512_div_ps(constant(1.0f), _mm512_add_ps(constant(1.0f), e));
}

REPQUANT_INLINE512 __m512 relu(__m512 x) {
  const __m512 raised =
      _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), x);
  return _mm512_mask_mov_ps(raised, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

REPQUANT_INLINE512 __m512 bounded_below(__m512 x) {  // NaN stays
  return _mm512_max_ps(constant(-200.0f), x);
}

REPQUANT_INLINE512 __m512 gelu_erf(__m512 x) {
  const __m512 v = bounded_below(x);
  return _mm512_mul_ps(
      _mm512_mul_ps(constant(0.5f), v),
      _mm512_add_ps(constant(1.0f), erf(_mm512_mul_ps(v, constant(0.707106781f)))));
}

REPQUANT_INLINE512 __m512 gelu_tanh(__m512 x) {
  const __m512 v = bounded_below(x);
  const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(v, v), v);
  const __m512 inner = _mm512_mul_ps(constant(0.797884561f),
                                     _mm512_add_ps(v, _mm512_mul_ps(constant(0.044715f), cube)));
  return _mm512_mul_ps(_mm512_mul_ps(constant(0.5f), v),
                       _mm512_add_ps(constant(1.0f), tanh(inner)));
}

REPQUANT_INLINE512 __m512 silu(__m512 x) {
  const __m512 v = bounded_below(x);
  return _mm512_mul_ps(v, sigmoid(v));
}

template <ActivationKind kKind> REPQUANT_INLINE512 __m512 value(__m512 x) {
  if constexpr (kKind == ActivationKind::kGeluErf) return gelu_erf(x);
  if constexpr (kKind == ActivationKind::kGeluTanh) return gelu_tanh(x);
  if constexpr (kKind == ActivationKind::kSilu) return silu(x);
  if constexpr (kKind == ActivationKind::kRelu) return relu(x);
  if constexpr (kKind == ActivationKind::kSigmoid) return sigmoid(x);
  return tanh(x);
}

template <ActivationKind kKind> REPQUANT_AVX512VNNI void apply(const ActivationArgs& args) {
  for (int64_t i = 0; i < args.count; i += 16) {
    const __mmask16 live = float512::first_lanes(args.count - i);
    _mm512_mask_storeu_ps(args.out + i, live,
                          value<kKind>(_mm512_maskz_loadu_ps(live, args.x + i)));
  }
}

void run(const ActivationArgs& args) noexcept {
  switch (args.kind) {
    case ActivationKind::kGeluErf:
      return apply<ActivationKind::kGeluErf>(args);
    case ActivationKind::kGeluTanh:
      return apply<ActivationKind::kGeluTanh>(args);
    case ActivationKind::kSilu:
      return apply<ActivationKind::kSilu>(args);
    case ActivationKind::kRelu:
      return apply<ActivationKind::kRelu>(args);
    case ActivationKind::kSigmoid:
      return apply<ActivationKind::kSigmoid>(args);
    case ActivationKind::kTanh:
      return apply<ActivationKind::kTanh>(args);
  }
}

}  // namespace

const ActivationKernel activation_avx512vnni{"activation/avx512vnni", Isa::kAvx512Vnni, run};

}  // namespace repquant::runtime
#endif
