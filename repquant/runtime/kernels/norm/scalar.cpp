#define REPQUANT_ROW
#include "repquant/runtime/kernels/norm/portable.h"

namespace repquant::runtime {

const NormKernel norm_scalar{"norm/scalar", Isa::kScalar, layer_norm, rms_norm, mean_rows};

}  // namespace repquant::runtime
