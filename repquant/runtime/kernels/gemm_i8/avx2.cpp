#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/gemm_i8/portable.h"

namespace repquant::runtime {

const GemmI8Kernel gemm_i8_avx2{"gemm_i8/avx2", Isa::kAvx2,    kDotRows, packed_bytes,
                                pack,           scratch_bytes, run};

}  // namespace repquant::runtime
#endif
