#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/matmul_f32/portable.h"

namespace repquant::runtime {

const MatmulF32Kernel matmul_f32_avx2{"matmul_f32/avx2", Isa::kAvx2, run};

}  // namespace repquant::runtime
#endif
