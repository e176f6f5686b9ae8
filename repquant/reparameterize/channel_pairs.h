#pragma once
// Two layers and what stands between them, where the channels between may be scaled freely:
// f(s x) = s f(x) for s > 0 of everything between, so s can move from the one into the other.
#include <string>
#include <vector>

#include "repquant/interpret/workspace.h"

namespace repquant::reparameterize {

struct ChannelPair {
  NodeId first = -1, second = -1;  // linear or conv with constant weights; first has a bias
  NodeId clip = -1;                // a clip from 0 between them: its upper bound takes the factors
  int64_t channels = 0;
  bool depthwise = false;  // second has one input channel for each row of its weight
  bool padded = false;     // second sees zeros that first did not write
  bool pooled = false;     // positions are averaged between them
};

// In graph order. Between the two: relu, leaky relu, clip [0, b], zero pads, poolings and means
// over positions, each read by the next alone. Where `refused` is given it gets "first: why not" of
// layers with one reader that begin no pair.
std::vector<ChannelPair> channel_pairs(const Workspace& ws, std::vector<std::string>* refused);

// The channels between become `factors` [channels] (> 0) times what they were, and the function
// stays: rows and bias of the first and the bounds of the clip are multiplied, the inputs of the
// second divided, in weights and reference. One f32 rounding each.
void scale_channels(Workspace& ws, const ChannelPair& pair, const at::Tensor& factors);

}  // namespace repquant::reparameterize
