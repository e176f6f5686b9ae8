// silu: x * sigmoid(x). Quick GELU, x * sigmoid(1.702 x), is not it and stays.
#include "repquant/graph/recognise/scalar_function.h"

namespace repquant::patterns {

void recognise_silu(Matcher& m) {
  const std::vector<ScalarTarget> targets{{"silu", {OpKind::kSilu, "", {}, {}, {}}}};
  recognise_scalar_functions(m, OpKind::kSigmoid, targets);
}

}   // namespace repquant::patterns
