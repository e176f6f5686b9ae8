#include "repquant/runtime/kernels/attention_i8/attention_i8.h"

namespace repquant::runtime {

std::span<const AttentionI8Kernel> attention_i8_kernels() { return {&attention_i8_scalar, 1}; }

}  // namespace repquant::runtime
