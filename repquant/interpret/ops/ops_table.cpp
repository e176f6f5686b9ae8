#include "repquant/interpret/ops/ops.h"

namespace repquant {

OpFunction op_function(OpKind op) {
  constexpr OpFunction (*kTables[])(OpKind) = {
      ops::elementwise_op, ops::binary_op,   ops::matrix_op,   ops::attention_op,
      ops::norm_op,        ops::movement_op, ops::index_op,    ops::reduce_op,
      ops::convolution_op, ops::pool_op,     ops::resize_op,   ops::quantize_op,
  };
  for (const auto table : kTables) {
    if (const OpFunction function = table(op)) return function;
  }
  return nullptr;
}

}  // namespace repquant
