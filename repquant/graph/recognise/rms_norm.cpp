// rms_norm: x / sqrt(mean(x^2) + epsilon) * gamma. A gamma written as 1 + w was folded before.
#include "repquant/graph/recognise/norm.h"

namespace repquant::patterns {
namespace {

void match(Matcher& m, const Node& node) {
  const auto n = normalised(m, node);
  if (!n) return;
  const auto square = mean_over_last(m, n->mean_square);
  const auto x = square ? squared(m, *square) : std::nullopt;
  if (!x || *x != n->numerator) return;
  const auto channels = m.last_dim(*x);
  if (!channels) return;
  apply_norm(m, OpKind::kRmsNorm, node.name, *x, n->epsilon, *channels,
             affine_after(m, node.outputs[0], *channels, false));
}

}   // namespace

void recognise_rms_norm(Matcher& m) {
  for (const NodeId id : std::vector<NodeId>(m.graph().order())) {
    const Node node = m.graph().node(id);
    if (node.op == OpKind::kDiv || node.op == OpKind::kMul) match(m, node);
  }
}

}   // namespace repquant::patterns
