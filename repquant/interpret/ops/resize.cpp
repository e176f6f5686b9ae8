#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {

OpFunction resize_op(OpKind) { return nullptr; }

}  // namespace repquant::ops
