#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/activation/portable.h"

namespace repquant::runtime {

const ActivationKernel activation_avx2{"activation/avx2", Isa::kAvx2, run};

}  // namespace repquant::runtime
#endif
