#include "repquant/graph/reference/kernels.h"
#include "repquant/graph/reference/reference.h"

namespace repquant::reference {

std::optional<std::vector<Tensor>> evaluate_node(const Node& node,
                                                 std::span<const Tensor* const> inputs) {
  for (const auto family :
       {movement, product, composite, convolution, batch_norm, reduction, element_wise}) {
    if (auto outputs = family(node, inputs)) return outputs;
  }
  return std::nullopt;
}

bool evaluate(const Graph& graph, std::span<const NodeId> nodes, Bindings& bindings) {
  for (const NodeId id : nodes) {
    const Node& node = graph.node(id);
    std::vector<const Tensor*> inputs;
    for (const ValueId value : node.inputs) {
      if (value == kNoValue) {
        inputs.push_back(nullptr);
      } else if (const auto it = bindings.find(value); it != bindings.end()) {
        inputs.push_back(&it->second);
      } else if (graph.is_constant(value)) {
        inputs.push_back(&*graph.value(value).constant);
      } else {
        return false;
      }
    }
    auto outputs = evaluate_node(node, inputs);
    if (!outputs || outputs->size() < node.outputs.size()) return false;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i] != kNoValue) bindings[node.outputs[i]] = std::move((*outputs)[i]);
    }
  }
  return true;
}

bool evaluate_widened(const Graph& graph, std::span<const Node* const> nodes, Bindings& bindings) {
  constexpr int64_t kOnnxFloat = 1, kOnnxDouble = 11;
  const auto widen = [](const Tensor& t) {
    return t.dtype() == DType::kF32 ? *cast(t, DType::kF64) : t;
  };
  for (auto& [id, tensor] : bindings) tensor = widen(tensor);
  for (const Node* given : nodes) {
    Node node = *given;
    if (node.op == OpKind::kCast && node.attrs.integer("to", 0) == kOnnxFloat)
      node.attrs.set("to", kOnnxDouble);
    std::vector<Tensor> constants(node.inputs.size());
    std::vector<const Tensor*> inputs(node.inputs.size(), nullptr);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const ValueId id = node.inputs[i];
      if (id == kNoValue) continue;
      const auto it = bindings.find(id);
      if (it == bindings.end() && !graph.is_constant(id)) return false;
      if (it == bindings.end()) constants[i] = widen(*graph.value(id).constant);
      inputs[i] = it != bindings.end() ? &it->second : &constants[i];
    }
    auto outputs = evaluate_node(node, inputs);
    if (!outputs || outputs->size() < node.outputs.size()) return false;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i] != kNoValue) bindings[node.outputs[i]] = widen((*outputs)[i]);
    }
  }
  return true;
}

}   // namespace repquant::reference
