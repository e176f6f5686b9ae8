#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#include "repquant/runtime/kernels/attention_i8/portable.h"

namespace repquant::runtime {

const AttentionI8Kernel attention_i8_avx2{"attention_i8/avx2", Isa::kAvx2, scratch_bytes, run};

}  // namespace repquant::runtime
#endif
