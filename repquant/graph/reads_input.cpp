#include "repquant/graph/reads_input.h"

#include <algorithm>
#include <set>

namespace repquant {
namespace {

bool is_layer(OpKind op) {
  switch (op) {
    case OpKind::kLinear:
    case OpKind::kGemm:
    case OpKind::kMatMul:
    case OpKind::kConv:
    case OpKind::kConvTranspose:
    case OpKind::kMultiHeadAttention:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool reads_graph_input(const Graph& graph, ValueId value) {
  std::vector<ValueId> pending{value};
  std::set<NodeId> seen;
  while (!pending.empty()) {
    const ValueId id = pending.back();
    pending.pop_back();
    if (id == kNoValue) continue;
    if (std::find(graph.inputs.begin(), graph.inputs.end(), id) != graph.inputs.end()) return true;
    const NodeId producer = graph.value(id).producer;
    if (producer < 0 || !seen.insert(producer).second) continue;
    const Node& node = graph.node(producer);
    if (is_layer(node.op)) continue;
    pending.insert(pending.end(), node.inputs.begin(), node.inputs.end());
  }
  return false;
}

}  // namespace repquant
