#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/elementwise/portable.h"

namespace repquant::runtime {

const ElementwiseKernel elementwise_avx2{
    "elementwise/avx2", Isa::kAvx2, quantize, quantize_log, table, dequantize, add, mul};

}  // namespace repquant::runtime
#endif
