#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"

namespace repquant::runtime {

std::span<const GemmI8Kernel> gemm_i8_kernels() { return {&gemm_i8_scalar, 1}; }

}  // namespace repquant::runtime
