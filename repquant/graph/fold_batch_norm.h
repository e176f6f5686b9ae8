#pragma once
// BatchNormalization at inference is one scale and one shift a channel:
//   y = a x + b,  a = gamma / sqrt(variance + epsilon),  b = beta - mean a   (computed in double).
#include "repquant/graph/graph.h"

namespace repquant {

// Folds every batch_norm with constant parameters into the conv, conv_transpose, gemm or linear
// before it, where that has constant weights and no other reader; otherwise into a mul and an add.
// One whose parameters are computed, or whose input has an unknown rank, stays. Returns how many
// went. Throws kCorruptFile where variance + epsilon is not positive or sizes contradict.
int fold_batch_norm(Graph& graph);

// Folds products and sums with a constant, one number or one a channel, into the convolution before
// them where it has constant weights and no other reader. Returns how many went.
int fold_affine(Graph& graph);

}  // namespace repquant
