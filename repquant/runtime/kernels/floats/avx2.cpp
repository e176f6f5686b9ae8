#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/floats/portable.h"

namespace repquant::runtime {

const FloatsKernel floats_avx2{"floats/avx2", Isa::kAvx2, binary, reduce, reduce_row, pool};

}  // namespace repquant::runtime
#endif
