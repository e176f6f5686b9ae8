#pragma once
// A transposed convolution is a convolution with an output channel for each place between the
// strides, whose channels are then laid out as pixels: depth_to_space(conv(x)). With that, whatever
// quantizes and executes convolutions does so for it, in integers without scattered sums.
#include "repquant/graph/graph.h"

namespace repquant {

// Rewrites every conv_transpose over images that has constant weights, one group and one stride for
// both axes; others stay. The kernel of the convolution is the union of the windows of all places,
// zero where a place does not look. Returns how many went; shapes have to be inferred again.
int rewrite_conv_transpose(Graph& graph);

}  // namespace repquant
