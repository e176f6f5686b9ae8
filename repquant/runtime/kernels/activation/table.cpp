#include "repquant/runtime/kernels/activation/activation.h"

namespace repquant::runtime {

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
