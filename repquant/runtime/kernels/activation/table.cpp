#include "repquant/runtime/kernels/activation/activation.h"

namespace repquant::runtime {

std::optional<ActivationKind> parse_activation(std::string_view name) {
  if (name == "gelu_erf") return ActivationKind::kGeluErf;
  if (name == "gelu_tanh") return ActivationKind::kGeluTanh;
  if (name == "silu") return ActivationKind::kSilu;
  if (name == "relu") return ActivationKind::kRelu;
  if (name == "relu6") return ActivationKind::kRelu6;
  if (name == "sigmoid") return ActivationKind::kSigmoid;
  if (name == "tanh") return ActivationKind::kTanh;
  return std::nullopt;
}

std::span<const ActivationKernel* const> activation_kernels() {
#if defined(__x86_64__)
  static constexpr const ActivationKernel* rows[] = {&activation_avx512vnni, &activation_avx2,
                                                     &activation_scalar};
#else
  static constexpr const ActivationKernel* rows[] = {&activation_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
