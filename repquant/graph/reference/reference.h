#pragma once
// A scalar evaluator of graph nodes, written from the operator definitions and nothing else: constant
// folding computes with it and recognisers judge their rewrites by it. Floats are computed in double
// and rounded to the tensor's type once a node; sums (matrix products, reductions, norms, softmax)
// stay in double until the end. Slow on purpose; meant for small tensors.
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "repquant/graph/graph.h"

namespace repquant::reference {

// The outputs of one node. `inputs` are in the order of the node, nullptr where an optional input is
// absent. nullopt when the op, an attribute or an element type is not covered, or shapes do not fit.
std::optional<std::vector<Tensor>> evaluate_node(const Node& node,
                                                 std::span<const Tensor* const> inputs);

using Bindings = std::unordered_map<ValueId, Tensor>;

// Runs `nodes` in the given order. Inputs come from `bindings`, then from the graph's constants;
// outputs are added to `bindings`. False when a node could not be evaluated or an input is missing.
bool evaluate(const Graph& graph, std::span<const NodeId> nodes, Bindings& bindings);

// The same for nodes that need not be in the graph, with every f32 tensor and constant widened to f64:
// what is left of a difference between two ways to compute something is not rounding.
bool evaluate_widened(const Graph& graph, std::span<const Node* const> nodes, Bindings& bindings);

}   // namespace repquant::reference
