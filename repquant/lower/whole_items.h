#pragma once
// Models exported for a batch of 1 use the leading axis for other things: [64, 64, C] may be 64
// windows of one image. Lowering speaks of items behind a batch axis.
#include "repquant/graph/graph.h"

namespace repquant::lowering {

// The batch is fixed to 1, and some value computed from the inputs has another leading size.
bool needs_batch_axis(const Graph& graph);

// The same graph (node and value ids stay) for any batch: every such value has the batch axis in
// front, axes, permutations and shapes of the ops are rewritten, reshapes are put in where an op
// moves the leading axis. Throws kUnsupported, naming the node, for an op that cannot be rewritten.
Graph with_batch_axis(const Graph& graph);

}  // namespace repquant::lowering
