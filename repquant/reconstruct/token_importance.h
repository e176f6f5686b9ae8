#pragma once
// Which tokens of a block's output the model's answer depends on: weights of the block loss (T2).
// A classifier that reads its class token makes all others of the last block worthless.
#include <span>

#include "repquant/interpret/workspace.h"
#include "repquant/observe/blocks.h"

namespace repquant::reconstruct {

// [T, 1] with mean 1: (1 - share) + share times the relative mean squared gradient of random +-1
// projections of the model's output with respect to a token. `later`: the blocks behind, in order;
// `output`: float samples [N, T, C] of the block's output. Undefined (all weigh the same) for
// share 0, where there is no token axis, and behind the last block.
at::Tensor token_importance(const Workspace& ws, std::span<const observe::Block> later,
                            const at::Tensor& output, double share, uint64_t seed);

}  // namespace repquant::reconstruct
