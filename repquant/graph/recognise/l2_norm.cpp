// lp_norm with p = 2: x / max(l2(x), epsilon) over the last axis.
#include "repquant/graph/recognise/matcher.h"

namespace repquant::patterns {
namespace {

// v = sqrt(sum of x^2) over the last axis, which is kept.
bool is_size_of(const Matcher& m, ValueId v, ValueId x) {
  const Node* reduce = m.producer(v, OpKind::kReduceL2);
  if (!reduce || reduce->inputs[0] != x || reduce->attrs.integer("keepdims", 1) != 1) return false;
  std::vector<int64_t> axes = reduce->attrs.integers("axes");
  if (reduce->inputs.size() > 1) {
    const Tensor* given = m.constant(reduce->inputs[1]);
    if (!given || given->dtype() != DType::kI64) return false;
    axes.assign(given->as<int64_t>().begin(), given->as<int64_t>().end());
  }
  const SymbolicShape* shape = m.shape(x);
  return axes.size() == 1 &&
         (axes[0] == -1 || (shape && axes[0] + 1 == static_cast<int64_t>(shape->size())));
}

// v = max(size, epsilon): epsilon and size.
std::optional<std::pair<double, ValueId>> bounded_below(const Matcher& m, ValueId v) {
  const Node* node = m.producer(v);
  if (!node) return std::nullopt;
  if (node->op == OpKind::kClip) {
    const bool upper = node->inputs.size() > 2 && node->inputs[2] != kNoValue;
    const auto low = node->inputs.size() > 1 ? m.scalar(node->inputs[1]) : std::nullopt;
    if (!low || upper) return std::nullopt;
    return std::pair(*low, node->inputs[0]);
  }
  const auto operands =
      node->op == OpKind::kMax && node->inputs.size() == 2 ? m.with_constant(*node) : std::nullopt;
  const auto low = operands ? m.scalar(operands->constant) : std::nullopt;
  return low ? std::optional(std::pair(*low, operands->value)) : std::nullopt;
}

void match(Matcher& m, const Node& div) {
  const ValueId x = div.inputs[0];
  ValueId divisor = div.inputs[1];
  const Node* expand = m.producer(divisor, OpKind::kExpand);
  if (expand) divisor = expand->inputs[0];
  const auto bounded = bounded_below(m, divisor);
  if (!bounded || !(bounded->first > 0) || !is_size_of(m, bounded->second, x)) return;
  Node node{OpKind::kLpNorm, div.name, {x}, {div.outputs[0]}, {}};
  node.attrs.set("p", int64_t{2});
  node.attrs.set("axis", int64_t{-1});
  node.attrs.set("epsilon", static_cast<float>(bounded->first));
  Rewrite rewrite{"l2_norm", div.name, {x}, {div.outputs[0]}, {std::move(node)}};
  rewrite.sample = Sample::kShape;
  rewrite.once = true;
  m.apply(std::move(rewrite));
}

}   // namespace

void recognise_l2_norm(Matcher& m) {
  for (const NodeId id : std::vector<NodeId>(m.graph().order())) {
    if (!m.graph().alive(id)) continue;
    const Node node = m.graph().node(id);
    if (node.op == OpKind::kDiv) match(m, node);
  }
}

}   // namespace repquant::patterns
