// linear from MatMul by a constant matrix, with the Add of a constant bias where one follows, and from
// Gemm. A bias added to each part of a split linear moves in front of the split.
#include "repquant/graph/recognise/matcher.h"
#include "repquant/graph/reference/kernels.h"

namespace repquant::patterns {
namespace {

const Tensor* float_matrix(const Matcher& m, ValueId id) {
  const Tensor* w = m.constant(id);
  return w && w->rank() == 2 && w->dtype() == DType::kF32 ? w : nullptr;
}

// [K, N] -> [N, K], times `factor`.
ValueId weight_of(Matcher& m, ValueId id, bool swap, float factor) {
  if (!swap && factor == 1.0F) return id;
  return m.derived(id, (swap ? "transposed" : "as is") + std::to_string(factor), [&] {
    Tensor w = *m.constant(id);
    if (swap) {
      const std::vector<int64_t> strides{1, w.shape()[1]};
      w = reference::strided_copy(w, {w.shape()[1], w.shape()[0]}, strides, 0);
    }
    for (float& v : w.as<float>()) v *= factor;
    return m.add_constant(m.graph().value(id).name, std::move(w));
  });
}

// A constant that adds one number a channel, as [N]. nullopt: not one.
std::optional<ValueId> bias_of(Matcher& m, ValueId id, int64_t n, std::optional<size_t> result_rank,
                               float factor) {
  const Tensor* b = m.constant(id);
  if (!b || b->dtype() != DType::kF32 || (b->size() != n && b->size() != 1)) return std::nullopt;
  if (b->size() == n && n != 1 && (b->rank() == 0 || b->shape().back() != n)) return std::nullopt;
  if (b->rank() > 1 && (!result_rank || b->rank() > static_cast<int64_t>(*result_rank)))
    return std::nullopt;
  if (b->rank() == 1 && b->size() == n && factor == 1.0F) return id;
  return m.derived(id, "bias" + std::to_string(n) + "," + std::to_string(factor), [&] {
    Tensor flat(DType::kF32, {n});
    const auto from = b->as<float>();
    for (int64_t i = 0; i < n; ++i) {
      flat.as<float>()[static_cast<size_t>(i)] =
          factor * from[from.size() == 1 ? 0 : static_cast<size_t>(i)];
    }
    return m.add_constant(m.graph().value(id).name, std::move(flat));
  });
}

Rewrite linear_rewrite(const Node& from, ValueId x, ValueId weight, std::optional<ValueId> bias,
                       ValueId output) {
  Node node{OpKind::kLinear, from.name, {x, weight}, {output}, {}};
  if (bias) node.inputs.push_back(*bias);
  return {"linear", from.name, {x}, {output}, {std::move(node)}};
}

void match_matmul(Matcher& m, const Node& node) {
  const Tensor* w = float_matrix(m, node.inputs[1]);
  if (!w || m.constant(node.inputs[0])) return;
  ValueId output = node.outputs[0];
  std::optional<ValueId> bias;
  if (m.read_once(output)) {
    const Node& next = m.graph().node(m.readers(output)[0]);
    const auto operands = next.op == OpKind::kAdd ? m.with_constant(next) : std::nullopt;
    if (operands) {
      const SymbolicShape* shape = m.shape(output);
      bias = bias_of(m, operands->constant, w->shape()[1],
                     shape ? std::optional(shape->size()) : std::nullopt, 1.0F);
      if (bias) output = next.outputs[0];
    }
  }
  m.apply(
      linear_rewrite(node, node.inputs[0], weight_of(m, node.inputs[1], true, 1.0F), bias, output));
}

void match_gemm(Matcher& m, const Node& node) {
  const Tensor* w = float_matrix(m, node.inputs[1]);
  if (!w || m.constant(node.inputs[0]) || node.attrs.integer("transA", 0) != 0) return;
  const bool transposed = node.attrs.integer("transB", 0) != 0;
  std::optional<ValueId> bias;
  if (node.inputs.size() > 2 && node.inputs[2] != kNoValue) {
    const int64_t n = w->shape()[transposed ? 0 : 1];
    bias = bias_of(m, node.inputs[2], n, 2, node.attrs.real("beta", 1.0F));
    if (!bias) return;
  }
  const ValueId weight = weight_of(m, node.inputs[1], !transposed, node.attrs.real("alpha", 1.0F));
  m.apply(linear_rewrite(node, node.inputs[0], weight, bias, node.outputs[0]));
}

struct AddedParts {
  std::vector<ValueId> outputs;
  Tensor bias;
};

// Every part of the split is read by one Add of a constant vector.
std::optional<AddedParts> added_parts(Matcher& m, const Node& split, int64_t n) {
  AddedParts parts;
  std::vector<float> all;
  for (const ValueId part : split.outputs) {
    const auto width = m.last_dim(part);
    if (!width || !m.read_once(part)) return std::nullopt;
    const Node& add = m.graph().node(m.readers(part)[0]);
    const auto operands = add.op == OpKind::kAdd ? m.with_constant(add) : std::nullopt;
    const auto bias =
        operands ? bias_of(m, operands->constant, *width, std::nullopt, 1.0F) : std::nullopt;
    if (!bias) return std::nullopt;
    const auto values = m.constant(*bias)->as<float>();
    all.insert(all.end(), values.begin(), values.end());
    parts.outputs.push_back(add.outputs[0]);
  }
  if (static_cast<int64_t>(all.size()) != n) return std::nullopt;
  parts.bias = Tensor::of<float>({n}, all);
  return parts;
}

void match_split_bias(Matcher& m, const Node& split) {
  const Node* linear = m.producer(split.inputs[0], OpKind::kLinear);
  const SymbolicShape* shape = m.shape(split.inputs[0]);
  if (!linear || !shape || linear->inputs.size() > 2 || !m.read_once(split.inputs[0])) return;
  const int64_t axis = split.attrs.integer("axis", 0);
  if (axis != -1 && axis != static_cast<int64_t>(shape->size()) - 1) return;
  auto parts = added_parts(m, split, m.constant(linear->inputs[1])->shape()[0]);
  if (!parts) return;
  const ValueId whole = m.add_value(m.graph().value(split.inputs[0]).name);
  const ValueId bias = m.add_constant(linear->name + ".bias", std::move(parts->bias));
  Node first{
      OpKind::kLinear, linear->name, {linear->inputs[0], linear->inputs[1], bias}, {whole}, {}};
  Node second = split;
  second.inputs[0] = whole;
  second.outputs = parts->outputs;
  m.apply({"split_bias",
           split.name,
           {linear->inputs[0]},
           parts->outputs,
           {std::move(first), std::move(second)}});
}

}   // namespace

void recognise_linear(Matcher& m) {
  for (const NodeId id : std::vector<NodeId>(m.graph().order())) {
    if (!m.graph().alive(id)) continue;
    const Node node = m.graph().node(id);
    if (node.op == OpKind::kMatMul) match_matmul(m, node);
    if (node.op == OpKind::kGemm) match_gemm(m, node);
  }
  m.graph().remove_dead();
  m.refresh();
  for (const NodeId id : std::vector<NodeId>(m.graph().order())) {
    if (!m.graph().alive(id)) continue;
    const Node node = m.graph().node(id);
    if (node.op == OpKind::kSplit) match_split_bias(m, node);
  }
}

}   // namespace repquant::patterns
