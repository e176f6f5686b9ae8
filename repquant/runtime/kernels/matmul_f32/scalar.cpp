#define REPQUANT_ROW
#include "repquant/runtime/kernels/matmul_f32/portable.h"

namespace repquant::runtime {

const MatmulF32Kernel matmul_f32_scalar{"matmul_f32/scalar", Isa::kScalar, run};

}  // namespace repquant::runtime
