// layer_norm: d = x - mean(x); d / sqrt(mean(d^2) + epsilon) * gamma + beta.
#include "repquant/graph/recognise/norm.h"

namespace repquant::patterns {
namespace {

// v = x - mean(x) over the last axis: x.
std::optional<ValueId> centred(const Matcher& m, ValueId v) {
  const Node* sub = m.producer(v, OpKind::kSub);
  if (!sub) return std::nullopt;
  const ValueId x = m.skip_casts(sub->inputs[0]);
  const auto mean_of = mean_over_last(m, sub->inputs[1]);
  return mean_of == x ? std::optional(x) : std::nullopt;
}

void match(Matcher& m, const Node& node) {
  const auto n = normalised(m, node);
  if (!n) return;
  const auto square = mean_over_last(m, n->mean_square);
  const auto x = centred(m, n->numerator);
  if (!square || !x) return;
  const ValueId deviation = squared(m, *square).value_or(kNoValue);
  if (deviation == kNoValue) return;
  // older exporters subtract the mean twice
  if (deviation != n->numerator && centred(m, deviation) != x) return;
  const auto channels = m.last_dim(*x);
  if (!channels) return;
  apply_norm(m, OpKind::kLayerNorm, node.name, *x, n->epsilon, *channels,
             affine_after(m, node.outputs[0], *channels, true));
}

}   // namespace

void recognise_layer_norm(Matcher& m) {
  for (const NodeId id : std::vector<NodeId>(m.graph().order())) {
    const Node node = m.graph().node(id);
    if (node.op == OpKind::kDiv || node.op == OpKind::kMul) match(m, node);
  }
}

}   // namespace repquant::patterns
