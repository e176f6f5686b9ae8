#include "repquant/interpret/workspace.h"

namespace repquant {
namespace {

// Adds the constant `tensor` as input `index` of a node that has none there.
void add_input_constant(Workspace& ws, NodeId id, size_t index, const std::string& suffix,
                        const at::Tensor& tensor) {
  const std::string name = ws.graph.node(id).name + suffix;
  const ValueId value = ws.graph.add_constant(name, from_aten(tensor));
  Node& node = ws.graph.node(id);
  if (node.inputs.size() <= index) node.inputs.resize(index + 1, kNoValue);
  node.inputs[index] = value;
  ws.weights[value] = tensor;
  ws.reference[value] = tensor;
}

void explicit_linear(Workspace& ws, NodeId id) {
  if (!ws.has_constant(id, 1)) return;
  ws.set_constant(id, 1, ws.constant(ws.graph.node(id).inputs[1]).clone());
  const int64_t rows = ws.constant(ws.graph.node(id).inputs[1]).size(0);
  const Node& node = ws.graph.node(id);
  if (node.inputs.size() < 3 || node.inputs[2] == kNoValue) {
    add_input_constant(ws, id, 2, ".bias", at::zeros({rows}));
  } else if (ws.has_constant(id, 2)) {
    ws.set_constant(id, 2, ws.constant(node.inputs[2]).clone());
  }
}

void explicit_norm(Workspace& ws, NodeId id) {
  const Node& node = ws.graph.node(id);
  const auto& shape = ws.graph.value(node.inputs[0]).shape;
  if (node.attrs.integer("axis", -1) != -1 &&
      !(shape && node.attrs.integer("axis", -1) == static_cast<int64_t>(shape->size()) - 1)) {
    return;
  }
  int64_t channels = -1;
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    if (ws.has_constant(id, static_cast<int>(i))) channels = ws.constant(node.inputs[i]).numel();
  }
  if (channels < 0 && shape && !shape->empty()) channels = shape->back().size;
  if (channels < 0) return;
  for (int i = 1; i <= 2; ++i) {
    const Node& now = ws.graph.node(id);
    const auto index = static_cast<size_t>(i);
    if (now.inputs.size() <= index || now.inputs[index] == kNoValue) {
      add_input_constant(ws, id, index, i == 1 ? ".gain" : ".beta",
                         i == 1 ? at::ones({channels}) : at::zeros({channels}));
    } else if (ws.has_constant(id, i)) {
      ws.set_constant(id, i, ws.constant(now.inputs[index]).clone());
    }
  }
}

}  // namespace

const at::Tensor& Workspace::constant(ValueId id) const {
  const auto it = weights.find(id);
  REPQUANT_CHECK(it != weights.end());
  return it->second;
}

const at::Tensor& Workspace::constant(NodeId node, int input) const {
  return constant(graph.node(node).inputs.at(static_cast<size_t>(input)));
}

const SiteTarget* Workspace::target(const Site& site) const {
  const auto it = targets.find(site);
  return it == targets.end() ? nullptr : &it->second;
}

bool Workspace::has_constant(NodeId node, int input) const {
  const Node& n = graph.node(node);
  const auto index = static_cast<size_t>(input);
  return index < n.inputs.size() && n.inputs[index] != kNoValue &&
         graph.is_constant(n.inputs[index]);
}

void Workspace::set_constant(NodeId node, int input, at::Tensor tensor) {
  REPQUANT_CHECK(has_constant(node, input));
  const auto index = static_cast<size_t>(input);
  ValueId id = graph.node(node).inputs[index];
  int readers = 0;
  for (const NodeId other : graph.consumers(id)) {
    for (const ValueId used : graph.node(other).inputs) readers += used == id ? 1 : 0;
  }
  if (readers > 1 || graph.is_output(id)) {
    id = graph.add_constant(graph.node(node).name + "." + std::to_string(input), from_aten(tensor));
    reference[id] = reference.at(graph.node(node).inputs[index]);
    graph.node(node).inputs[index] = id;
  }
  weights[id] = std::move(tensor);
}

void Workspace::throw_if_stopped() const {
  if (stop != nullptr && stop->raised()) throw Interrupted("interrupted; state saved");
}

std::vector<at::Tensor> load_inputs(const Workspace& ws, int64_t begin, int64_t end) {
  std::vector<at::Tensor> inputs{ws.calibration.load(begin, end)};
  if (!ws.calibration.load_others) return inputs;
  for (at::Tensor& other : ws.calibration.load_others(begin, end))
    inputs.push_back(std::move(other));
  return inputs;
}

ValueMap load_values(const Workspace& ws, int64_t begin, int64_t end) {
  const std::vector<at::Tensor> inputs = load_inputs(ws, begin, end);
  REPQUANT_CHECK(inputs.size() == ws.graph.inputs.size());
  ValueMap values;
  for (size_t i = 0; i < inputs.size(); ++i) values[ws.graph.inputs[i]] = inputs[i];
  return values;
}

Workspace make_workspace(Graph graph) {
  Workspace ws;
  ws.graph = std::move(graph);
  ws.weights = load_weights(ws.graph);
  ws.reference = ws.weights;
  return ws;
}

void make_parameters_explicit(Workspace& ws) {
  const std::vector<NodeId> order = ws.graph.order();
  for (const NodeId id : order) {
    const OpKind op = ws.graph.node(id).op;
    if (op == OpKind::kLinear || op == OpKind::kConv) explicit_linear(ws, id);
    if (op == OpKind::kLayerNorm || op == OpKind::kRmsNorm) explicit_norm(ws, id);
  }
}

void store_weights(Workspace& ws) {
  for (const auto& [id, tensor] : ws.weights) {
    if (!ws.graph.is_constant(id)) continue;
    Value& value = ws.graph.value(id);
    value.constant = from_aten(tensor);
    value.shape.emplace();  // a number may have become one a channel
    for (const int64_t size : value.constant->shape()) value.shape->push_back({size, {}});
  }
}

void for_each_index(ThreadPool& pool, int64_t count, const std::function<void(int64_t)>& body) {
  pool.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
    static thread_local bool single = false;
    if (!single) {
      at::set_num_threads(1);
      single = true;
    }
    const at::NoGradGuard no_grad;
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace repquant
