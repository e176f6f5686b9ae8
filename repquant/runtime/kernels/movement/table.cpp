#include "repquant/runtime/kernels/movement/movement.h"

namespace repquant::runtime {

std::span<const MovementKernel* const> movement_kernels() {
#if defined(__x86_64__)
  static constexpr const MovementKernel* rows[] = {&movement_avx2, &movement_scalar};
#else
  static constexpr const MovementKernel* rows[] = {&movement_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
