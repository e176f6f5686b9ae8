#include "repquant/runtime/kernels/movement/movement.h"

namespace repquant::runtime {

std::span<const MovementKernel* const> movement_kernels() {
  static constexpr const MovementKernel* rows[] = {&movement_scalar};
  return rows;
}

}  // namespace repquant::runtime
