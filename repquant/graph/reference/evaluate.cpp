#include "repquant/graph/reference/kernels.h"
#include "repquant/graph/reference/reference.h"

namespace repquant::reference {

std::optional<std::vector<Tensor>> evaluate_node(const Node& node, std::span<const Tensor* const> inputs) {
  for (const auto family : {movement, product, composite, reduction, element_wise}) {
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

}  // namespace repquant::reference
