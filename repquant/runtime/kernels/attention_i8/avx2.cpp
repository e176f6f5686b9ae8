#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX2 __attribute__((flatten))
#define REPQUANT_TARGET REPQUANT_AVX2
#include "repquant/runtime/kernels/attention_i8/wide256.h"

namespace repquant::runtime {

const AttentionI8Kernel attention_i8_avx2{"attention_i8/avx2", Isa::kAvx2, scratch_bytes256,
                                          run256<false>};

}  // namespace repquant::runtime
#endif
