#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#define REPQUANT_TARGET REPQUANT_AVX2
#include "repquant/runtime/kernels/gemm_i4/few256.h"

namespace repquant::runtime {

const GemmI4Kernel gemm_i4_avx2{.name = "gemm_i4/avx2",
                                .isa = Isa::kAvx2,
                                .wide = &gemm_i8_avx2,
                                .packed_bytes = packed_bytes<gemm_i8_avx2>,
                                .pack = pack<gemm_i8_avx2>,
                                .scratch_bytes = scratch_bytes<gemm_i8_avx2>,
                                .run = run256<false, gemm_i8_avx2>};

}  // namespace repquant::runtime
#endif
