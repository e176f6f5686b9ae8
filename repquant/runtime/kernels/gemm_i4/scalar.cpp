#define REPQUANT_ROW
#include "repquant/runtime/kernels/gemm_i4/portable.h"

namespace repquant::runtime {

const GemmI4Kernel gemm_i4_scalar{.name = "gemm_i4/scalar",
                                  .isa = Isa::kScalar,
                                  .wide = &gemm_i8_scalar,
                                  .packed_bytes = packed_bytes<gemm_i8_scalar>,
                                  .pack = pack<gemm_i8_scalar>,
                                  .scratch_bytes = scratch_bytes<gemm_i8_scalar>,
                                  .run = run<gemm_i8_scalar, int16_t>};

}  // namespace repquant::runtime
