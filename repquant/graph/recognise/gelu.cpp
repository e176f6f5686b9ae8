// gelu: x * 0.5 * (1 + erf(x / sqrt(2))) in any order, or with tanh(sqrt(2 / pi) (x + 0.044715 x^3)).
#include "repquant/graph/recognise/scalar_function.h"

namespace repquant::patterns {
namespace {

ScalarTarget gelu(const std::string& form) {
  ScalarTarget target{"gelu", {OpKind::kGelu, "", {}, {}, {}}};
  target.node.attrs.set("approximate", form);
  return target;
}

}   // namespace

void recognise_gelu(Matcher& m) {
  const std::vector<ScalarTarget> erf{gelu("none")}, tanh{gelu("tanh")};
  recognise_scalar_functions(m, OpKind::kErf, erf);
  recognise_scalar_functions(m, OpKind::kTanh, tanh);
}

}   // namespace repquant::patterns
