#include "repquant/graph/recognise/mask.h"

#include <algorithm>

#include "repquant/graph/reference/kernels.h"

namespace repquant::patterns {
namespace {

constexpr double kMasked = -1e4;   // what exporters write for minus infinity is at most this

// A term as numbers to add.
std::optional<Tensor> as_added(const MaskTerm& term, const Tensor& value) {
  if (term.kind == MaskTerm::kAdded) {
    return reference::is_float(value.dtype()) ? reference::cast(value, DType::kF32) : std::nullopt;
  }
  if (value.dtype() != DType::kBool) return std::nullopt;
  Tensor out(DType::kF32, value.shape());
  const auto condition = value.as<bool>();
  for (size_t i = 0; i < condition.size(); ++i) {
    const bool filled = condition[i] == (term.kind == MaskTerm::kFillWhere);
    out.as<float>()[i] = filled ? static_cast<float>(term.fill) : 0.0F;
  }
  return out;
}

std::optional<Tensor> sum(const Tensor& a, const Tensor& b) {
  const Node add{OpKind::kAdd, "", {}, {}, {}};
  const Tensor* inputs[] = {&a, &b};
  auto out = reference::evaluate_node(add, inputs);
  return out ? std::optional(std::move(out->front())) : std::nullopt;
}

bool is_causal(const Tensor& bias) {
  if (bias.rank() < 2 || bias.dtype() != DType::kF32) return false;
  const int64_t n = bias.shape().back();
  if (n < 2 || bias.shape()[bias.shape().size() - 2] != n || bias.size() != n * n) return false;
  const auto values = bias.as<float>();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const float v = values[static_cast<size_t>(i * n + j)];
      if (j <= i ? v != 0.0F : !(v <= kMasked)) return false;
    }
  }
  return true;
}

// The value in a trial run, if it follows from the shapes of the graph's inputs alone.
std::optional<Tensor> from_shapes(Matcher& m, ValueId value, int round) {
  const std::vector<ValueId> to{value};
  const auto nodes = m.between({}, to);
  if (!nodes) return std::nullopt;
  const auto& inputs = m.graph().inputs;
  reference::Bindings bindings;
  for (const NodeId id : *nodes) {
    const Node& node = m.graph().node(id);
    for (const ValueId input : node.inputs) {
      if (std::find(inputs.begin(), inputs.end(), input) == inputs.end()) continue;
      const auto shape = m.trial_shape(input, round);
      if (node.op != OpKind::kShape || !shape) return std::nullopt;
      bindings.try_emplace(input, m.graph().value(input).dtype, *shape);
    }
  }
  if (!reference::evaluate(m.graph(), *nodes, bindings)) return std::nullopt;
  const auto it = bindings.find(value);
  return it == bindings.end() ? std::nullopt : std::optional(std::move(it->second));
}

bool causal_by_shapes(Matcher& m, const MaskTerm& term) {
  for (const int round : {0, 1}) {
    const auto value = from_shapes(m, term.value, round);
    const auto added = value ? as_added(term, *value) : std::nullopt;
    if (!added || !is_causal(*added)) return false;
  }
  return true;
}

std::optional<Shape> known_shape(const Matcher& m, ValueId id) {
  const SymbolicShape* symbolic = m.shape(id);
  if (!symbolic) return std::nullopt;
  Shape shape;
  for (const Dim& dim : *symbolic) {
    if (!dim.known()) return std::nullopt;
    shape.push_back(dim.size);
  }
  return shape;
}

// The first slice along every axis on which all slices are equal.
Tensor without_repetition(Tensor tensor) {
  for (size_t axis = 0; axis < tensor.shape().size(); ++axis) {
    const auto strides = reference::row_major_strides(tensor.shape());
    const int64_t n = tensor.shape()[axis], stride = strides[axis];
    const auto values = tensor.as<float>();
    bool repeats = true;
    for (size_t i = 0; repeats && i < values.size(); ++i) {
      const int64_t along = static_cast<int64_t>(i) / stride % n;
      repeats = values[i] == values[i - static_cast<size_t>(along * stride)];
    }
    if (!repeats || n == 1) continue;
    Shape shape = tensor.shape();
    shape[axis] = 1;
    tensor = reference::strided_copy(tensor, shape, strides, 0);
  }
  return tensor;
}

}   // namespace

std::optional<WindowMask> window_mask(Matcher& m, const Node& reshape) {
  const Node* add = m.producer(reshape.inputs[0], OpKind::kAdd);
  const auto operands = add ? m.with_constant(*add) : std::nullopt;
  const Node* first = operands ? m.producer(operands->value, OpKind::kReshape) : nullptr;
  if (!first) return std::nullopt;
  const auto inner = known_shape(m, first->outputs[0]), outer = known_shape(m, reshape.outputs[0]);
  const Tensor* mask = m.constant(operands->constant);
  if (!inner || !outer || known_shape(m, first->inputs[0]) != outer ||
      mask->dtype() != DType::kF32) {
    return std::nullopt;
  }
  auto full = reference::expand_to(*mask, *inner);
  if (!full || full->bytes() > (size_t{64} << 20)) return std::nullopt;
  full->reshape(*outer);
  const ValueId term = m.add_constant(reshape.name + ".mask", without_repetition(std::move(*full)));
  return WindowMask{first->inputs[0], {term, MaskTerm::kAdded, 0}};
}

std::optional<CombinedMask> combine_mask(Matcher& m, std::span<const MaskTerm> terms,
                                         const SymbolicShape* scores, bool head_axis) {
  if (!scores || scores->size() < 2) return std::nullopt;
  const bool square = scores->back() == (*scores)[scores->size() - 2];
  CombinedMask out;
  std::optional<Tensor> constant;
  for (const MaskTerm& term : terms) {
    const Tensor* value = m.constant(term.value);
    if (!value && square && causal_by_shapes(m, term)) {
      out.causal = true;
    } else if (!value) {
      const SymbolicShape* shape = m.shape(term.value);
      if (!shape || shape->size() > scores->size() || (!head_axis && shape->size() > 2))
        return std::nullopt;
      out.terms.push_back(term);
    } else {
      auto added = as_added(term, *value);
      if (added && constant) added = sum(*constant, *added);
      if (!added || added->rank() > static_cast<int64_t>(scores->size())) return std::nullopt;
      constant = std::move(added);
    }
  }
  if (!constant) return out;
  if (square && is_causal(*constant)) {
    out.causal = true;
    return out;
  }
  if (!head_axis && constant->rank() > 2) {
    Shape shape = constant->shape();
    shape.insert(shape.end() - 2, 1);
    constant->reshape(shape);
  }
  out.constant = m.add_constant("mask", std::move(*constant));
  return out;
}

}   // namespace repquant::patterns
