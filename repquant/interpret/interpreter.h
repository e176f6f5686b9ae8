#pragma once
// Runs a Graph in float with ATen, node by node. Autograd flows through; any device the tensors are on.
#include <functional>
#include <span>
#include <unordered_map>
#include <vector>

#include <torch/torch.h>

#include "repquant/graph/graph.h"
#include "repquant/graph/quant_plan.h"

namespace repquant {

using ValueMap = std::unordered_map<ValueId, at::Tensor>;
using WeightMap = std::unordered_map<ValueId, at::Tensor>;   // constants of a graph

at::Tensor to_aten(const Tensor& tensor);          // copies; f16 and bf16 keep their type
Tensor from_aten(const at::Tensor& tensor);        // contiguous copy on the host
at::ScalarType to_aten(DType dtype);
DType from_aten(at::ScalarType type);
WeightMap load_weights(const Graph& graph);        // every constant

// One op: inputs in the order of the node, an undefined tensor where an optional input is absent.
// Throws kUnsupported for attribute combinations it cannot do, naming the node.
using OpFunction = std::vector<at::Tensor> (*)(const Node& node, std::span<const at::Tensor> inputs);
OpFunction op_function(OpKind op);                 // nullptr: the interpreter has no such op

// Called on every tensor a node reads (activations and constants) and on the probabilities inside
// multi_head_attention; returns what the node shall see. Fake quantization and taps hang here.
using SiteHook = std::function<at::Tensor(const Site& site, const at::Tensor& tensor)>;

class Interpreter {
 public:
  // Both must outlive the interpreter. Edits of the graph or weights are seen by later runs.
  Interpreter(const Graph& graph, const WeightMap& weights) : graph_(graph), weights_(weights) {}

  // Graph inputs in order -> graph outputs in order. Values are freed after their last use.
  std::vector<at::Tensor> run(std::span<const at::Tensor> inputs, const SiteHook& hook = {}) const;
  // Runs the given nodes in order over `values` (inputs must be present), adding their outputs.
  // Values that none of `nodes` reads any more and that are not in `keep` are freed as it goes.
  void run_nodes(std::span<const NodeId> nodes, ValueMap& values, std::span<const ValueId> keep,
                 const SiteHook& hook = {}) const;
  void run_node(NodeId id, ValueMap& values, const SiteHook& hook = {}) const;

 private:
  const Graph& graph_;
  const WeightMap& weights_;
};

}  // namespace repquant
