#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVXVNNI __attribute__((flatten))
#define REPQUANT_TARGET REPQUANT_AVXVNNI
#include "repquant/runtime/kernels/attention_i8/wide256.h"

namespace repquant::runtime {

const AttentionI8Kernel attention_i8_avxvnni{"attention_i8/avxvnni", Isa::kAvxVnni,
                                             scratch_bytes256, run256<true>};

}  // namespace repquant::runtime
#endif
