#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"

namespace repquant::runtime {

std::span<const GemmI8Kernel* const> gemm_i8_kernels() {
#if defined(__x86_64__)
  static constexpr const GemmI8Kernel* rows[] = {&gemm_i8_amx, &gemm_i8_avx512vnni,
                                                 &gemm_i8_avxvnni, &gemm_i8_avx2, &gemm_i8_scalar};
#else
  static constexpr const GemmI8Kernel* rows[] = {&gemm_i8_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
