#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {

OpFunction pool_op(OpKind) { return nullptr; }

}  // namespace repquant::ops
