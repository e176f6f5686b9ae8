// silu: x * sigmoid(x). Quick GELU, x * sigmoid(1.702 x), is not it and stays.
// hard_swish: x * clip(x + 3, 0, 6) / 6.
#include "repquant/graph/recognise/scalar_function.h"

namespace repquant::patterns {

void recognise_silu(Matcher& m) {
  const std::vector<ScalarTarget> targets{{"silu", {OpKind::kSilu, "", {}, {}, {}}}};
  recognise_scalar_functions(m, OpKind::kSigmoid, targets);
  const std::vector<ScalarTarget> hard{{"hard_swish", {OpKind::kHardSwish, "", {}, {}, {}}}};
  recognise_scalar_functions(m, OpKind::kClip, hard);
}

}   // namespace repquant::patterns
