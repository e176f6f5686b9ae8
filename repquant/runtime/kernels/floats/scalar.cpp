#define REPQUANT_ROW
#include "repquant/runtime/kernels/floats/portable.h"

namespace repquant::runtime {

const FloatsKernel floats_scalar{"floats/scalar", Isa::kScalar, binary, reduce, reduce_row, pool};

}  // namespace repquant::runtime
