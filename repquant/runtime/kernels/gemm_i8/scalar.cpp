#define REPQUANT_ROW
#include "repquant/runtime/kernels/gemm_i8/portable.h"

namespace repquant::runtime {

const GemmI8Kernel gemm_i8_scalar{"gemm_i8/scalar", Isa::kScalar, kDotRows, packed_bytes, pack,
                                  scratch_bytes,    run};

}  // namespace repquant::runtime
