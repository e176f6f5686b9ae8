#pragma once
#include "repquant/graph/graph.h"

namespace repquant {

// True when data reaches `value` from a graph input without passing a layer with weights (linear,
// conv, matmul, attention): the pixels themselves, moved, padded, scaled or normalised.
bool reads_graph_input(const Graph& graph, ValueId value);

}  // namespace repquant
