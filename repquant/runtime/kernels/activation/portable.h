#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
#include "repquant/core/format/elementary.h"
#include "repquant/runtime/kernels/activation/activation.h"

namespace repquant::runtime {
namespace {

template <float (*kFunction)(float)> void apply(const ActivationArgs& args) {
  const float* x = args.x;
  float* out = args.out;
  const int64_t count = args.count;
  for (int64_t i = 0; i < count; ++i) out[i] = kFunction(x[i]);
}

[[maybe_unused]] REPQUANT_ROW void run(const ActivationArgs& args) noexcept {
  switch (args.kind) {
    case ActivationKind::kGeluErf:
      return apply<gelu_erf_f32>(args);
    case ActivationKind::kGeluTanh:
      return apply<gelu_tanh_f32>(args);
    case ActivationKind::kSilu:
      return apply<silu_f32>(args);
    case ActivationKind::kRelu:
      return apply<relu_f32>(args);
    case ActivationKind::kRelu6:
      return apply<relu6_f32>(args);
    case ActivationKind::kSigmoid:
      return apply<sigmoid_f32>(args);
    case ActivationKind::kTanh:
      return apply<tanh_f32>(args);
  }
}

}  // namespace

}  // namespace repquant::runtime
