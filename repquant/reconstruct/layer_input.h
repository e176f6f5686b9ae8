#pragma once
// What the rows of a layer's weight are multiplied with.
#include "repquant/interpret/workspace.h"

namespace repquant::reconstruct {

// `x`, the input of linear or conv `id`, as [groups, tokens, K]: token t of group g times the rows
// of W [N, K] of that group (N / groups each, in order) is the output. A linear has one group and
// its tokens are all but the last axis of x; those of a convolution [N, C / groups, kh, kw] are the
// windows, zeros where they leave the image. K counts as the elements of a weight row.
at::Tensor layer_input(const Workspace& ws, NodeId id, const at::Tensor& x);
int64_t layer_groups(const Graph& graph, NodeId id);

}  // namespace repquant::reconstruct
