#include "repquant/runtime/kernels/movement/movement.h"

namespace repquant::runtime {

std::span<const MovementKernel> movement_kernels() { return {&movement_scalar, 1}; }

}  // namespace repquant::runtime
