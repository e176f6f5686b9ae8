#include "repquant/runtime/kernels/softmax/softmax.h"

namespace repquant::runtime {

std::span<const SoftmaxKernel* const> softmax_kernels() {
#if defined(__x86_64__)
  static constexpr const SoftmaxKernel* rows[] = {&softmax_avx512vnni, &softmax_avx2,
                                                  &softmax_scalar};
#else
  static constexpr const SoftmaxKernel* rows[] = {&softmax_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
