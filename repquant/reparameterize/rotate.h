#pragma once
// Offline rotations (QuaRot, arXiv 2404.00456; beyond_repquant B): change weights, keep the
// function, cost nothing at run time. Always before any fold.
#include <string>

#include "repquant/interpret/workspace.h"

namespace repquant::reparameterize {

// Rotates the residual stream: LayerNorm becomes RMSNorm (writers are centred, gains and biases
// move into the readers), writers are multiplied by a signed Hadamard matrix, readers by its
// transpose. Edits graph, weights and reference. Returns false and leaves all alone, with the
// reason, when some writer or reader of the stream cannot be rewritten.
bool rotate_residual(Workspace& ws, uint64_t seed, std::string* reason);

// Head-wise rotations of q and k (cancel in the scores) and of v and the projection. Returns the
// number of attention nodes rotated.
int rotate_heads(Workspace& ws, uint64_t seed);

// The rows of a linear that make one operand of an attention: directly, or through a split of a
// fused projection.
struct OperandRows {
  NodeId linear = -1;
  int64_t begin = 0, end = 0;
};
std::optional<OperandRows> operand_rows(const Workspace& ws, NodeId attention, int input);
// The linear that alone reads the attention's output.
std::optional<NodeId> attention_projection(const Workspace& ws, NodeId attention);

}  // namespace repquant::reparameterize
