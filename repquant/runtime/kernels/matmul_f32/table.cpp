#include "repquant/runtime/kernels/matmul_f32/matmul_f32.h"

namespace repquant::runtime {

std::span<const MatmulF32Kernel* const> matmul_f32_kernels() {
#if defined(__x86_64__)
  static constexpr const MatmulF32Kernel* rows[] = {&matmul_f32_avx512vnni, &matmul_f32_avx2,
                                                    &matmul_f32_scalar};
#else
  static constexpr const MatmulF32Kernel* rows[] = {&matmul_f32_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
