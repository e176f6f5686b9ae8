#include "repquant/graph/fold_constants.h"

#include <algorithm>
#include <numeric>

#include "repquant/graph/reference/kernels.h"
#include "repquant/graph/reference/reference.h"
#include "repquant/graph/symbolic_dims.h"

namespace repquant {
namespace {

constexpr int64_t kLargestBytes = int64_t{64} << 20;
constexpr int kMostRounds = 32;

Tensor vector_tensor(std::span<const int64_t> values) {
  return Tensor::of<int64_t>({static_cast<int64_t>(values.size())}, values);
}

void make_constant(Graph& graph, ValueId id, Tensor tensor) {
  Value& value = graph.value(id);
  value.dtype = tensor.dtype();
  value.shape.emplace();
  for (const int64_t size : tensor.shape()) value.shape->push_back({size, {}});
  value.constant = std::move(tensor);
}

// A graph output keeps its producer, so that it keeps its name.
bool any_output(const Graph& graph, const Node& node) {
  return std::any_of(node.outputs.begin(), node.outputs.end(),
                     [&](ValueId id) { return id != kNoValue && graph.is_output(id); });
}

// ---- constants --------------------------------------------------------------------------------------

bool fits(const Graph& graph, const Node& node) {
  for (const ValueId id : node.outputs) {
    if (id == kNoValue) continue;
    const Value& value = graph.value(id);
    if (!value.shape) continue;
    int64_t bytes = static_cast<int64_t>(size_of(value.dtype));
    for (const Dim& dim : *value.shape) {
      if (dim.known() && (__builtin_mul_overflow(bytes, dim.size, &bytes) || bytes > kLargestBytes))
        return false;
    }
  }
  return true;
}

// Ops that can make much out of little are only evaluated when their result is known to be small.
bool may_grow(const Graph& graph, const Node& node) {
  const auto known = [&](ValueId id) {
    const auto& shape = graph.value(id).shape;
    return shape &&
           std::all_of(shape->begin(), shape->end(), [](const Dim& d) { return d.known(); });
  };
  switch (node.op) {
    case OpKind::kExpand:
    case OpKind::kTile:
    case OpKind::kConstantOfShape:
    case OpKind::kRange: break;
    default: return false;
  }
  if (known(node.outputs[0])) return false;
  int64_t count = 1;   // without shape inference: the product of the sizes asked for
  for (const ValueId id : node.inputs) {
    const auto values = reference::to_doubles(*graph.value(id).constant);
    if (!values) return true;
    double product =
        graph.value(id).constant->dtype() == DType::kI64 ? 1 : static_cast<double>(values->size());
    for (const double v : *values) product *= std::max(1.0, std::abs(v));
    if (product > 1e7) return true;
    count *= static_cast<int64_t>(product);
    if (count > 10'000'000) return true;
  }
  return false;
}

bool fold_node(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  std::vector<const Tensor*> inputs;
  for (const ValueId input : node.inputs) {
    if (input != kNoValue && !graph.is_constant(input)) return false;
    inputs.push_back(input == kNoValue ? nullptr : &*graph.value(input).constant);
  }
  if (inputs.empty() || any_output(graph, node) || !fits(graph, node) || may_grow(graph, node))
    return false;
  auto results = reference::evaluate_node(node, inputs);
  if (!results || results->size() < node.outputs.size()) return false;
  for (const Tensor& tensor : *results) {
    if (tensor.bytes() > static_cast<size_t>(kLargestBytes)) return false;
  }
  const std::vector<ValueId> outputs = node.outputs;
  graph.remove_node(id);
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i] != kNoValue) make_constant(graph, outputs[i], std::move((*results)[i]));
  }
  return true;
}

bool fold_known(Graph& graph) {
  bool changed = false;
  for (const NodeId id : std::vector<NodeId>(graph.order())) changed |= fold_node(graph, id);
  return changed;
}

// Shape(x) and what is computed from it, where every dimension is known.
bool fold_dimensions(Graph& graph, const SymbolicDims& dims) {
  bool changed = false;
  for (const NodeId id : std::vector<NodeId>(graph.order())) {
    const Node& node = graph.node(id);
    if (node.outputs.size() != 1 || node.outputs[0] == kNoValue || any_output(graph, node))
      continue;
    const ValueId output = node.outputs[0];
    const DimVector* vector = dims.vector(output);
    if (!vector || !vector->all_known()) continue;
    std::vector<int64_t> values;
    for (const DimElement& e : vector->elements) values.push_back(e.value);
    Tensor tensor = reference::from_integers(vector->dtype, vector->shape, values);
    graph.remove_node(id);
    make_constant(graph, output, std::move(tensor));
    changed = true;
  }
  return changed;
}

// ---- nodes without effect ---------------------------------------------------------------------------

std::vector<int64_t> permutation(const Graph& graph, const Node& node) {
  auto perm = node.attrs.integers("perm");
  const auto& shape = graph.value(node.inputs[0]).shape;
  if (perm.empty() && shape) {
    perm.resize(shape->size());
    std::iota(perm.rbegin(), perm.rend(), 0);
  }
  return perm;
}

bool is_identity(const std::vector<int64_t>& perm) {
  for (size_t d = 0; d < perm.size(); ++d) {
    if (perm[d] != static_cast<int64_t>(d)) return false;
  }
  return !perm.empty();
}

bool without_effect(const Graph& graph, const Node& node, const SymbolicDims& dims) {
  switch (node.op) {
    case OpKind::kIdentity: return true;
    case OpKind::kDropout:
      return node.outputs.size() == 1 || node.outputs[1] == kNoValue ||
             graph.consumers(node.outputs[1]).empty();
    case OpKind::kCast:
      return graph.value(node.inputs[0]).dtype == graph.value(node.outputs[0]).dtype;
    case OpKind::kTranspose: return is_identity(permutation(graph, node));
    case OpKind::kReshape:
    case OpKind::kExpand: {
      const SymbolicShape *x = dims.shape(node.inputs[0]), *y = dims.shape(node.outputs[0]);
      return x && y && *x == *y;
    }
    default: return false;
  }
}

bool remove_effectless(Graph& graph, const SymbolicDims& dims) {
  bool changed = false;
  for (const NodeId id : std::vector<NodeId>(graph.order())) {
    const Node& node = graph.node(id);
    if (node.inputs.empty() || node.inputs[0] == kNoValue || any_output(graph, node)) continue;
    if (!without_effect(graph, node, dims)) continue;
    const ValueId from = node.outputs[0], to = node.inputs[0];
    graph.remove_node(id);
    graph.replace_uses(from, to);
    changed = true;
  }
  return changed;
}

bool merge_transposes(Graph& graph) {
  bool changed = false;
  for (const NodeId id : graph.order()) {
    Node& outer = graph.node(id);
    if (outer.op != OpKind::kTranspose) continue;
    const NodeId before = graph.value(outer.inputs[0]).producer;
    if (before < 0 || graph.node(before).op != OpKind::kTranspose) continue;
    const Node& inner = graph.node(before);
    const auto p = permutation(graph, inner), q = permutation(graph, outer);
    if (p.empty() || p.size() != q.size()) continue;
    std::vector<int64_t> both;
    for (const int64_t axis : q) both.push_back(p[static_cast<size_t>(axis)]);
    if (!is_identity(both) && graph.consumers(outer.inputs[0]).size() > 1) continue;
    outer.inputs[0] = inner.inputs[0];
    outer.attrs.set("perm", both);
    changed = true;
  }
  return changed;
}

// ---- targets of Reshape and Expand --------------------------------------------------------------------

bool is_vector(const Graph& graph, ValueId id, std::span<const int64_t> values) {
  if (!graph.is_constant(id)) return false;
  const Tensor& tensor = *graph.value(id).constant;
  const auto own = tensor.rank() == 1 ? reference::to_integers(tensor) : std::nullopt;
  return own && tensor.dtype() == DType::kI64 &&
         std::equal(own->begin(), own->end(), values.begin(), values.end());
}

bool set_target(Graph& graph, NodeId id, std::span<const int64_t> values) {
  Node& node = graph.node(id);
  const bool plain = node.attrs.all().empty();
  if (plain && is_vector(graph, node.inputs[1], values)) return false;
  const std::string name = graph.value(node.outputs[0]).name + ".shape";
  node.inputs[1] = graph.add_constant(name, vector_tensor(values));
  node.attrs = {};
  return true;
}

bool plain_reshape(Graph& graph, NodeId id, const SymbolicDims& dims) {
  const Node& node = graph.node(id);
  const SymbolicShape* x = dims.shape(node.inputs[0]);
  const DimVector* target = dims.vector(node.inputs[1]);
  if (!x || !target) return false;
  const auto shape = resolve_reshape(*x, target->elements, node.attrs.integer("allowzero", 0) != 0);
  if (!shape) return false;
  std::vector<int64_t> values;
  std::vector<size_t> open;
  for (size_t d = 0; d < shape->size(); ++d) {
    if ((*shape)[d].size == 0) return false;   // an empty tensor: leave it as written
    values.push_back((*shape)[d].known() ? (*shape)[d].size : -1);
    if (!(*shape)[d].known()) open.push_back(d);
  }
  const auto copied = [&](size_t d) {
    return d < x->size() && !(*shape)[d].symbol.empty() && (*x)[d] == (*shape)[d];
  };
  size_t left = open.size();
  for (const size_t d : open) {
    if (left > 1 && copied(d)) {
      values[d] = 0;
      --left;
    }
  }
  return left <= 1 && set_target(graph, id, values);
}

bool plain_expand(Graph& graph, NodeId id, const SymbolicDims& dims) {
  const Node& node = graph.node(id);
  const SymbolicShape* x = dims.shape(node.inputs[0]);
  const DimVector* target = dims.vector(node.inputs[1]);
  if (!x || !target || target->shape.size() != 1) return false;
  const size_t rank = target->elements.size();
  std::vector<int64_t> values;
  for (size_t d = 0; d < rank; ++d) {
    const DimElement& e = target->elements[d];
    const bool inside = d + x->size() >= rank;
    const Dim own = inside ? (*x)[d + x->size() - rank] : Dim{1, {}};
    if (e.known) values.push_back(e.value == own.size ? 1 : e.value);
    else if (!e.symbol.empty() && !own.known() && own.symbol == e.symbol) values.push_back(1);
    else return false;
  }
  return set_target(graph, id, values);
}

struct InputAxis {
  ValueId input;
  int64_t axis;
};

std::optional<InputAxis> axis_of_symbol(const Graph& graph, const SymbolicDims& dims,
                                        const std::string& symbol) {
  for (const ValueId input : graph.inputs) {
    const SymbolicShape* shape = dims.shape(input);
    for (size_t d = 0; shape && d < shape->size(); ++d) {
      if (!(*shape)[d].known() && (*shape)[d].symbol == symbol)
        return InputAxis{input, static_cast<int64_t>(d)};
    }
  }
  return std::nullopt;
}

// Already Concat(Shape(graph input, axis, axis + 1) | constant, ...), standing right before its reader?
// `sources` has the axis of every element that is not known.
bool in_canonical_place(const Graph& graph, NodeId reader,
                        const std::vector<std::optional<InputAxis>>& sources) {
  const auto& order = graph.order();
  const auto at = std::find(order.begin(), order.end(), reader);
  const auto open =
      std::count_if(sources.begin(), sources.end(), [](const auto& s) { return s.has_value(); });
  if (at - order.begin() < open + 1) return false;
  const Node& concat = graph.node(*(at - 1));
  if (concat.op != OpKind::kConcat || concat.outputs[0] != graph.node(reader).inputs[1] ||
      concat.inputs.size() != sources.size()) {
    return false;
  }
  auto next = at - 1 - open;
  for (size_t d = 0; d < sources.size(); ++d) {
    if (!sources[d]) {
      if (!graph.is_constant(concat.inputs[d])) return false;
      continue;
    }
    const Node& node = graph.node(*next++);
    if (node.op != OpKind::kShape || node.outputs[0] != concat.inputs[d] ||
        node.inputs[0] != sources[d]->input ||
        node.attrs.integer("start", -1) != sources[d]->axis ||
        node.attrs.integer("end", -1) != sources[d]->axis + 1) {
      return false;
    }
  }
  return true;
}

ValueId add_result(Graph& graph, const std::string& name, int64_t size) {
  Value value;
  value.name = name;
  value.dtype = DType::kI64;
  value.shape = SymbolicShape{{size, {}}};
  return graph.add_value(std::move(value));
}

bool computed_target(Graph& graph, NodeId id, const SymbolicDims& dims) {
  const DimVector* target = dims.vector(graph.node(id).inputs[1]);
  if (!target || target->shape.size() != 1 || target->all_known()) return false;
  std::vector<std::optional<InputAxis>> sources;
  for (const DimElement& e : target->elements) {
    sources.push_back(e.known ? std::nullopt : axis_of_symbol(graph, dims, e.symbol));
    if (!e.known && !sources.back()) return false;
  }
  const std::vector<DimElement> elements = target->elements;
  if (in_canonical_place(graph, id, sources)) return false;
  const std::string stem = graph.node(id).name + ".shape";
  Node concat{OpKind::kConcat, stem, {}, {}, {}};
  concat.attrs.set("axis", int64_t{0});
  for (size_t d = 0; d < elements.size(); ++d) {
    const std::string part = stem + "." + std::to_string(d);
    if (elements[d].known) {
      concat.inputs.push_back(
          graph.add_constant(part, vector_tensor(std::vector<int64_t>{elements[d].value})));
      continue;
    }
    Node shape{OpKind::kShape, part, {sources[d]->input}, {add_result(graph, part, 1)}, {}};
    shape.attrs.set("start", sources[d]->axis);
    shape.attrs.set("end", sources[d]->axis + 1);
    concat.inputs.push_back(shape.outputs[0]);
    graph.add_node(std::move(shape), id);
  }
  concat.outputs = {add_result(graph, stem, static_cast<int64_t>(elements.size()))};
  const ValueId result = concat.outputs[0];
  graph.add_node(std::move(concat), id);
  graph.node(id).inputs[1] = result;
  return true;
}

bool plain_targets(Graph& graph, const SymbolicDims& dims) {
  bool changed = false;
  for (const NodeId id : std::vector<NodeId>(graph.order())) {
    const Node& node = graph.node(id);
    if (node.inputs.size() < 2 || node.inputs[1] == kNoValue) continue;
    if (node.op == OpKind::kReshape) changed |= plain_reshape(graph, id, dims);
    if (node.op == OpKind::kExpand)
      changed |= plain_expand(graph, id, dims) || computed_target(graph, id, dims);
  }
  return changed;
}

}   // namespace

void fold_constants(Graph& graph) {
  for (int round = 0; round < kMostRounds; ++round) {
    infer_shapes(graph);
    bool changed = fold_known(graph);
    changed |= merge_transposes(graph);
    {
      const SymbolicDims dims(graph);
      changed |= remove_effectless(graph, dims);
    }
    {
      const SymbolicDims dims(graph);
      changed |= fold_dimensions(graph, dims);
      changed |= plain_targets(graph, dims);
    }
    graph.remove_dead();
    if (!changed) break;
  }
  infer_shapes(graph);
}

}   // namespace repquant
