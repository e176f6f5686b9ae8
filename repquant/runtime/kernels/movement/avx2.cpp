#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/movement/portable.h"

namespace repquant::runtime {

const MovementKernel movement_avx2{"movement/avx2", Isa::kAvx2, copy};

}  // namespace repquant::runtime
#endif
