#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/norm/portable.h"

namespace repquant::runtime {

const NormKernel norm_avx2{"norm/avx2", Isa::kAvx2, layer_norm, rms_norm, mean_rows};

}  // namespace repquant::runtime
#endif
