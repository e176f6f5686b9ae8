#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/depthwise_i8/portable.h"

namespace repquant::runtime {

const DepthwiseI8Kernel depthwise_i8_avx512vnni{"depthwise_i8/avx512vnni", Isa::kAvx512Vnni, run};

}  // namespace repquant::runtime
#endif
