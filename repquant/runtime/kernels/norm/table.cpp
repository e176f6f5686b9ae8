#include "repquant/runtime/kernels/norm/norm.h"

namespace repquant::runtime {

std::span<const NormKernel* const> norm_kernels() {
#if defined(__x86_64__)
  static constexpr const NormKernel* rows[] = {&norm_avx512vnni, &norm_avx2, &norm_scalar};
#else
  static constexpr const NormKernel* rows[] = {&norm_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
