#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/gemm_i4/portable.h"

namespace repquant::runtime {

const GemmI4Kernel gemm_i4_amx{.name = "gemm_i4/amx",
                               .isa = Isa::kAmx,
                               .wide = &gemm_i8_amx,
                               .packed_bytes = packed_bytes<gemm_i8_amx>,
                               .pack = pack<gemm_i8_amx>,
                               .scratch_bytes = scratch_bytes<gemm_i8_amx>,
                               .run = run<gemm_i8_amx, int8_t>};

}  // namespace repquant::runtime
#endif
