#include "repquant/runtime/kernels/activation/activation.h"

namespace repquant::runtime {

std::optional<ActivationKind> parse_activation(std::string_view name) {
  if (name == "gelu_erf") return ActivationKind::kGeluErf;
  if (name == "gelu_tanh") return ActivationKind::kGeluTanh;
  if (name == "silu") return ActivationKind::kSilu;
  if (name == "relu") return ActivationKind::kRelu;
  if (name == "sigmoid") return ActivationKind::kSigmoid;
  if (name == "tanh") return ActivationKind::kTanh;
  return std::nullopt;
}

std::span<const ActivationKernel> activation_kernels() { return {&activation_scalar, 1}; }

}  // namespace repquant::runtime
