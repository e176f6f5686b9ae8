#include "repquant/interpret/interpreter.h"

#include <algorithm>

#include "repquant/interpret/ops/ops.h"

namespace repquant {
namespace {

std::string site_of(const Graph& graph, const Node& node, ValueId id) {
  return "node \"" + node.name + "\": value \"" + graph.value(id).name + "\"";
}

// Index of the last position in `nodes` that reads each value; absent when none does.
std::unordered_map<ValueId, size_t> last_uses(const Graph& graph, std::span<const NodeId> nodes) {
  std::unordered_map<ValueId, size_t> last;
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const ValueId id : graph.node(nodes[i]).inputs) {
      if (id != kNoValue) last[id] = i;
    }
  }
  return last;
}

}  // namespace

WeightMap load_weights(const Graph& graph) {
  WeightMap weights;
  for (ValueId id = 0; id < static_cast<ValueId>(graph.value_count()); ++id) {
    if (graph.is_constant(id)) weights.emplace(id, to_aten(*graph.value(id).constant));
  }
  return weights;
}

std::vector<at::Tensor> Interpreter::run(std::span<const at::Tensor> inputs,
                                         const SiteHook& hook) const {
  if (inputs.size() != graph_.inputs.size()) {
    throw Error(ErrorCode::kInvalidArgument, "interpret: \"" + graph_.name + "\": expected " +
                                                 std::to_string(graph_.inputs.size()) +
                                                 " inputs, got " + std::to_string(inputs.size()));
  }
  ValueMap values;
  for (size_t i = 0; i < inputs.size(); ++i) values[graph_.inputs[i]] = inputs[i];
  run_nodes(graph_.order(), values, graph_.outputs, hook);
  std::vector<at::Tensor> outputs;
  for (const ValueId id : graph_.outputs) {
    const auto found = values.find(id);
    if (found != values.end()) {
      outputs.push_back(found->second);
    } else {  // an output that is a weight
      const auto weight = weights_.find(id);
      outputs.push_back(weight != weights_.end() ? weight->second
                                                 : to_aten(*graph_.value(id).constant));
    }
  }
  return outputs;
}

void Interpreter::run_nodes(std::span<const NodeId> nodes, ValueMap& values,
                            std::span<const ValueId> keep, const SiteHook& hook) const {
  const auto last = last_uses(graph_, nodes);
  const auto kept = [&](ValueId id) { return std::ranges::find(keep, id) != keep.end(); };
  for (size_t i = 0; i < nodes.size(); ++i) {
    run_node(nodes[i], values, hook);
    const Node& node = graph_.node(nodes[i]);
    for (const ValueId id : node.inputs) {
      if (id != kNoValue && last.at(id) == i && !kept(id)) values.erase(id);
    }
    for (const ValueId id : node.outputs) {
      if (id != kNoValue && !last.contains(id) && !kept(id)) values.erase(id);
    }
  }
}

void Interpreter::run_node(NodeId id, ValueMap& values, const SiteHook& hook) const {
  const Node& node = graph_.node(id);
  std::vector<at::Tensor> inputs(node.inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ValueId value = node.inputs[i];
    if (value == kNoValue) continue;
    if (const auto found = values.find(value); found != values.end()) {
      inputs[i] = found->second;
    } else if (const auto weight = weights_.find(value); weight != weights_.end()) {
      inputs[i] = weight->second;
    } else if (graph_.is_constant(value)) {  // added to the graph after the weights were loaded
      inputs[i] = to_aten(*graph_.value(value).constant);
    } else {
      throw Error(ErrorCode::kInternal,
                  "interpret: " + site_of(graph_, node, value) + " is not computed yet");
    }
    if (hook) inputs[i] = hook(Site{id, static_cast<int>(i)}, inputs[i]);
  }
  std::vector<at::Tensor> outputs;
  try {
    if (node.op == OpKind::kMultiHeadAttention) {
      ops::ProbabilitiesHook probabilities;
      if (hook) {
        probabilities = [&](const at::Tensor& p) { return hook(Site{id, kProbabilities}, p); };
      }
      outputs = {ops::multi_head_attention(node, inputs, probabilities)};
    } else {
      const OpFunction function = op_function(node.op);
      if (function == nullptr) ops::refuse(node, "the interpreter has no such op");
      outputs = function(node, inputs);
    }
  } catch (const c10::Error& error) {  // a shape or type the op cannot take, or no memory for it
    const std::string what = error.what_without_backtrace();
    if (what.find("allocate memory") != std::string::npos) {
      throw Error(ErrorCode::kResourceExhausted,
                  "interpret: node \"" + node.name + "\" (" + std::string(name_of(node.op)) +
                      "): its result does not fit into memory");
    }
    ops::malformed(node, what);
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNoValue) continue;
    if (i >= outputs.size() || !outputs[i].defined()) {
      ops::refuse(node, "output " + std::to_string(i) + " is not computed");
    }
    values[node.outputs[i]] = outputs[i];
  }
}

}  // namespace repquant
