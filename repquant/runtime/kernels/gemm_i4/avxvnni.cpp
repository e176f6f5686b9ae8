#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVXVNNI __attribute__((flatten))
#define REPQUANT_TARGET REPQUANT_AVXVNNI
#include "repquant/runtime/kernels/gemm_i4/few256.h"

namespace repquant::runtime {

const GemmI4Kernel gemm_i4_avxvnni{.name = "gemm_i4/avxvnni",
                                   .isa = Isa::kAvxVnni,
                                   .wide = &gemm_i8_avxvnni,
                                   .packed_bytes = packed_bytes<gemm_i8_avxvnni>,
                                   .pack = pack<gemm_i8_avxvnni>,
                                   .scratch_bytes = scratch_bytes<gemm_i8_avxvnni>,
                                   .run = run256<true, gemm_i8_avxvnni>};

}  // namespace repquant::runtime
#endif
