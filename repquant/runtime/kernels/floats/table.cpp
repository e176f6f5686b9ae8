#include "repquant/runtime/kernels/floats/floats.h"

namespace repquant::runtime {

std::span<const FloatsKernel* const> floats_kernels() {
#if defined(__x86_64__)
  static constexpr const FloatsKernel* rows[] = {&floats_avx512vnni, &floats_avx2, &floats_scalar};
#else
  static constexpr const FloatsKernel* rows[] = {&floats_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
