#include "repquant/runtime/kernels/elementwise/elementwise.h"

namespace repquant::runtime {

std::span<const ElementwiseKernel> elementwise_kernels() { return {&elementwise_scalar, 1}; }

}  // namespace repquant::runtime
