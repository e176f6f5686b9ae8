#define REPQUANT_ROW
#include "repquant/runtime/kernels/attention_i8/portable.h"

namespace repquant::runtime {

const AttentionI8Kernel attention_i8_scalar{"attention_i8/scalar", Isa::kScalar, scratch_bytes,
                                            run};

}  // namespace repquant::runtime
