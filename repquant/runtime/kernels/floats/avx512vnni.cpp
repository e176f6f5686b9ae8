#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/floats/portable.h"

namespace repquant::runtime {

const FloatsKernel floats_avx512vnni{"floats/avx512vnni", Isa::kAvx512Vnni, binary, reduce,
                                     reduce_row, pool};

}  // namespace repquant::runtime
#endif
