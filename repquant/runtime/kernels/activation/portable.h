#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file, whose REPQUANT_ROW sets the target and inlines all below it.
#include "repquant/runtime/kernels/activation/activation.h"

namespace repquant::runtime {
namespace {

// Blocks pass through a local array: the output may be the input, which would keep the compiler
// from using vectors.
template <class Value> void each(const ActivationArgs& args, const Value& value) {
  constexpr int64_t kBlock = 16;
  const float* x = args.x;
  float* out = args.out;
  const int64_t count = args.count;
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    float block[kBlock];
    for (int64_t j = 0; j < kBlock; ++j) block[j] = value(x[i + j]);
    for (int64_t j = 0; j < kBlock; ++j) out[i + j] = block[j];
  }
  for (; i < count; ++i) out[i] = value(x[i]);
}

template <float (*kFunction)(float)> void plain(const ActivationArgs& args) {
  each(args, [](float x) { return kFunction(x); });
}
template <float (*kFunction)(float, float)> void one_parameter(const ActivationArgs& args) {
  const float a = args.a;
  each(args, [a](float x) { return kFunction(x, a); });
}
template <float (*kFunction)(float, float, float)> void two_parameters(const ActivationArgs& args) {
  const float a = args.a, b = args.b;
  each(args, [a, b](float x) { return kFunction(x, a, b); });
}

[[maybe_unused]] REPQUANT_ROW void run(const ActivationArgs& args) noexcept {
  switch (args.kind) {
    case FunctionKind::kGeluErf:
      return plain<gelu_erf_f32>(args);
    case FunctionKind::kGeluTanh:
      return plain<gelu_tanh_f32>(args);
    case FunctionKind::kSilu:
      return plain<silu_f32>(args);
    case FunctionKind::kRelu:
      return plain<relu_f32>(args);
    case FunctionKind::kRelu6:
      return plain<relu6_f32>(args);
    case FunctionKind::kSigmoid:
      return plain<sigmoid_f32>(args);
    case FunctionKind::kTanh:
      return plain<tanh_f32>(args);
    case FunctionKind::kErf:
      return plain<erf_f32>(args);
    case FunctionKind::kLeakyRelu:
      return one_parameter<leaky_relu_f32>(args);
    case FunctionKind::kElu:
      return one_parameter<elu_f32>(args);
    case FunctionKind::kHardSigmoid:
      return two_parameters<hard_sigmoid_f32>(args);
    case FunctionKind::kHardSwish:
      return plain<hard_swish_f32>(args);
    case FunctionKind::kClip:
      return two_parameters<clip_f32>(args);
    case FunctionKind::kSoftplus:
      return plain<softplus_f32>(args);
    case FunctionKind::kMish:
      return plain<mish_f32>(args);
    case FunctionKind::kExp:
      return plain<exp_f32>(args);
    case FunctionKind::kLog:
      return plain<log_f32>(args);
    case FunctionKind::kSin:
      return plain<sin_f32>(args);
    case FunctionKind::kCos:
      return plain<cos_f32>(args);
    case FunctionKind::kSqrt:
      return plain<sqrt_f32>(args);
    case FunctionKind::kRsqrt:
      return plain<rsqrt_f32>(args);
    case FunctionKind::kReciprocal:
      return plain<reciprocal_f32>(args);
    case FunctionKind::kSquare:
      return plain<square_f32>(args);
    case FunctionKind::kNeg:
      return plain<neg_f32>(args);
    case FunctionKind::kAbs:
      return plain<abs_f32>(args);
  }
}

}  // namespace

}  // namespace repquant::runtime
