#define REPQUANT_ROW
#include "repquant/runtime/kernels/softmax/portable.h"

namespace repquant::runtime {

const SoftmaxKernel softmax_scalar{"softmax/scalar", Isa::kScalar, softmax, l2_norm};

}  // namespace repquant::runtime
