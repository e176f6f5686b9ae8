#include "repquant/runtime/kernels/elementwise/elementwise.h"

namespace repquant::runtime {

std::span<const ElementwiseKernel* const> elementwise_kernels() {
#if defined(__x86_64__)
  static constexpr const ElementwiseKernel* rows[] = {&elementwise_avx512vnni, &elementwise_avx2,
                                                      &elementwise_scalar};
#else
  static constexpr const ElementwiseKernel* rows[] = {&elementwise_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
