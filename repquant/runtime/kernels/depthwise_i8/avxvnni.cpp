#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVXVNNI __attribute__((flatten))
#define REPQUANT_TARGET REPQUANT_AVXVNNI
#include "repquant/runtime/kernels/depthwise_i8/wide256.h"

namespace repquant::runtime {

const DepthwiseI8Kernel depthwise_i8_avxvnni{"depthwise_i8/avxvnni",
                                             Isa::kAvxVnni,
                                             wide_packed_bytes<kLanes, false>,
                                             wide_pack<kLanes, false>,
                                             wide_scratch_bytes<kLanes, false>,
                                             run256<true>};

}  // namespace repquant::runtime
#endif
