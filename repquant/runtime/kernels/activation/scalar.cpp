#define REPQUANT_ROW
#include "repquant/runtime/kernels/activation/portable.h"

namespace repquant::runtime {

const ActivationKernel activation_scalar{"activation/scalar", Isa::kScalar, run};

}  // namespace repquant::runtime
