#define REPQUANT_ROW
#include "repquant/runtime/kernels/depthwise_i8/portable.h"

namespace repquant::runtime {

const DepthwiseI8Kernel depthwise_i8_scalar{
    "depthwise_i8/scalar", Isa::kScalar, packed_bytes, pack, no_scratch, run};

}  // namespace repquant::runtime
