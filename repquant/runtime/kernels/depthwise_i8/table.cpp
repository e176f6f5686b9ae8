#include "repquant/runtime/kernels/depthwise_i8/depthwise_i8.h"

namespace repquant::runtime {

std::span<const DepthwiseI8Kernel* const> depthwise_i8_kernels() {
#if defined(__x86_64__)
  static constexpr const DepthwiseI8Kernel* rows[] = {
      &depthwise_i8_avx512vnni, &depthwise_i8_avxvnni, &depthwise_i8_avx2, &depthwise_i8_scalar};
#else
  static constexpr const DepthwiseI8Kernel* rows[] = {&depthwise_i8_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
