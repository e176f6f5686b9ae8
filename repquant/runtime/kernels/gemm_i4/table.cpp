#include "repquant/runtime/kernels/gemm_i4/gemm_i4.h"

namespace repquant::runtime {

std::span<const GemmI4Kernel* const> gemm_i4_kernels() {
#if defined(__x86_64__)
  static constexpr const GemmI4Kernel* rows[] = {&gemm_i4_amx, &gemm_i4_avx512vnni,
                                                 &gemm_i4_avxvnni, &gemm_i4_avx2, &gemm_i4_scalar};
#else
  static constexpr const GemmI4Kernel* rows[] = {&gemm_i4_scalar};
#endif
  return rows;
}

}  // namespace repquant::runtime
