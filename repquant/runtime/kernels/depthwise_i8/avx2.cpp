#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/depthwise_i8/portable.h"

namespace repquant::runtime {

const DepthwiseI8Kernel depthwise_i8_avx2{"depthwise_i8/avx2", Isa::kAvx2, packed_bytes, pack,
                                          no_scratch,          run};

}  // namespace repquant::runtime
#endif
