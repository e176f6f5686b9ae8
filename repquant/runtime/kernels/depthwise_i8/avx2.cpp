#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#define REPQUANT_TARGET REPQUANT_AVX2
#include "repquant/runtime/kernels/depthwise_i8/wide256.h"

namespace repquant::runtime {

const DepthwiseI8Kernel depthwise_i8_avx2{"depthwise_i8/avx2",
                                          Isa::kAvx2,
                                          wide_packed_bytes<kLanes, true>,
                                          wide_pack<kLanes, true>,
                                          wide_scratch_bytes<kLanes, true>,
                                          run256<false>};

}  // namespace repquant::runtime
#endif
