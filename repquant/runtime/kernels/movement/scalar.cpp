#define REPQUANT_ROW
#include "repquant/runtime/kernels/movement/portable.h"

namespace repquant::runtime {

const MovementKernel movement_scalar{"movement/scalar", Isa::kScalar, copy};

}  // namespace repquant::runtime
