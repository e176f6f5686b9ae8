#include "repquant/graph/recognise/norm.h"

#include "repquant/graph/reference/kernels.h"

namespace repquant::patterns {
namespace {

bool is_scalar(const Matcher& m, ValueId id, double value) { return m.scalar(id) == value; }

struct Root {
  ValueId mean_square;
  double epsilon;
};

std::optional<Root> root_of_sum(const Matcher& m, ValueId v) {
  const Node* add = m.producer(m.skip_casts(v), OpKind::kAdd);
  const auto operands = add ? m.with_constant(*add) : std::nullopt;
  const auto epsilon = operands ? m.scalar(operands->constant) : std::nullopt;
  if (!epsilon) return std::nullopt;
  return Root{m.skip_casts(operands->value), *epsilon};
}

// v = sqrt(a + epsilon)
std::optional<Root> root(const Matcher& m, ValueId v) {
  const Node* node = m.producer(m.skip_casts(v));
  if (!node) return std::nullopt;
  const bool is_root =
      node->op == OpKind::kSqrt || (node->op == OpKind::kPow && is_scalar(m, node->inputs[1], 0.5));
  return is_root ? root_of_sum(m, node->inputs[0]) : std::nullopt;
}

// v = 1 / sqrt(a + epsilon)
std::optional<Root> inverse_root(const Matcher& m, ValueId v) {
  const Node* node = m.producer(m.skip_casts(v));
  if (!node) return std::nullopt;
  if (node->op == OpKind::kReciprocal) return root(m, node->inputs[0]);
  if (node->op == OpKind::kDiv && is_scalar(m, node->inputs[0], 1.0))
    return root(m, node->inputs[1]);
  if (node->op == OpKind::kPow && is_scalar(m, node->inputs[1], -0.5))
    return root_of_sum(m, node->inputs[0]);
  return std::nullopt;
}

std::optional<ValueId> as_channels(Matcher& m, ValueId id, int64_t channels) {
  const Tensor* t = m.constant(id);
  if (!t || t->dtype() != DType::kF32) return std::nullopt;
  const bool vector = t->size() == channels && t->rank() > 0 && t->shape().back() == channels;
  if (!vector && t->size() != 1) return std::nullopt;
  if (vector && t->rank() == 1) return id;
  return m.derived(id, "channels" + std::to_string(channels), [&] {
    Tensor flat = *t;
    flat.reshape(vector ? Shape{channels} : Shape{1});
    return m.add_constant(m.graph().value(id).name, *reference::expand_to(flat, {channels}));
  });
}

}   // namespace

std::optional<ValueId> squared(const Matcher& m, ValueId v) {
  const Node* node = m.producer(m.skip_casts(v));
  if (!node || node->inputs.size() != 2) return std::nullopt;
  if (node->op == OpKind::kPow && is_scalar(m, node->inputs[1], 2.0))
    return m.skip_casts(node->inputs[0]);
  const ValueId a = m.skip_casts(node->inputs[0]);
  if (node->op == OpKind::kMul && a == m.skip_casts(node->inputs[1])) return a;
  return std::nullopt;
}

std::optional<ValueId> mean_over_last(const Matcher& m, ValueId v) {
  const Node* node = m.producer(m.skip_casts(v), OpKind::kReduceMean);
  if (!node || node->attrs.integer("keepdims", 1) != 1) return std::nullopt;
  std::vector<int64_t> axes = node->attrs.integers("axes");
  if (node->inputs.size() > 1 && node->inputs[1] != kNoValue) {
    const Tensor* given = m.constant(node->inputs[1]);
    const auto values = given ? reference::to_integers(*given) : std::nullopt;
    if (!values) return std::nullopt;
    axes = *values;
  }
  if (axes.size() != 1) return std::nullopt;
  const SymbolicShape* shape = m.shape(node->inputs[0]);
  const bool last = axes[0] == -1 || (shape && axes[0] == static_cast<int64_t>(shape->size()) - 1);
  return last ? std::optional(m.skip_casts(node->inputs[0])) : std::nullopt;
}

std::optional<Normalised> normalised(const Matcher& m, const Node& node) {
  if (node.inputs.size() != 2) return std::nullopt;
  if (node.op == OpKind::kDiv) {
    const auto r = root(m, node.inputs[1]);
    if (r) return Normalised{m.skip_casts(node.inputs[0]), r->mean_square, r->epsilon};
  }
  if (node.op != OpKind::kMul) return std::nullopt;
  for (const size_t i : {size_t{1}, size_t{0}}) {
    const auto r = inverse_root(m, node.inputs[i]);
    if (r) return Normalised{m.skip_casts(node.inputs[1 - i]), r->mean_square, r->epsilon};
  }
  return std::nullopt;
}

Affine affine_after(Matcher& m, ValueId value, int64_t channels, bool with_beta) {
  Affine out{{}, {}, value};
  const auto next = [&](OpKind op) -> std::optional<ValueId> {
    ValueId at = out.output;
    while (m.read_once(at) && m.graph().node(m.readers(at)[0]).op == OpKind::kCast) {
      at = m.graph().node(m.readers(at)[0]).outputs[0];
    }
    if (!m.read_once(at)) return std::nullopt;
    const Node& node = m.graph().node(m.readers(at)[0]);
    const auto operands = node.op == op ? m.with_constant(node) : std::nullopt;
    const auto vector = operands ? as_channels(m, operands->constant, channels) : std::nullopt;
    if (vector) out.output = node.outputs[0];
    return vector;
  };
  out.gamma = next(OpKind::kMul);
  if (with_beta) out.beta = next(OpKind::kAdd);
  return out;
}

bool apply_norm(Matcher& m, OpKind op, const std::string& subject, ValueId x, double epsilon,
                int64_t channels, const Affine& affine) {
  ValueId gamma = affine.gamma.value_or(kNoValue);
  if (gamma == kNoValue) {
    const std::vector<float> ones(static_cast<size_t>(channels), 1.0F);
    gamma = m.add_constant(subject + ".weight", Tensor::of<float>({channels}, ones));
  }
  Node node{op, subject, {x, gamma}, {affine.output}, {}};
  if (affine.beta) node.inputs.push_back(*affine.beta);
  node.attrs.set("epsilon", static_cast<float>(epsilon));
  node.attrs.set("axis", int64_t{-1});
  return m.apply({std::string(name_of(op)), subject, {x}, {affine.output}, {std::move(node)}});
}

}   // namespace repquant::patterns
