#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/softmax/portable.h"

namespace repquant::runtime {

const SoftmaxKernel softmax_avx2{"softmax/avx2", Isa::kAvx2, softmax, l2_norm};

}  // namespace repquant::runtime
#endif
