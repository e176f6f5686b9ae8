#define REPQUANT_ROW
#include "repquant/runtime/kernels/elementwise/portable.h"

namespace repquant::runtime {

const ElementwiseKernel elementwise_scalar{
    "elementwise/scalar", Isa::kScalar, quantize, quantize_log, table, dequantize, add, mul};

}  // namespace repquant::runtime
