#pragma once
// Products and sums with constants in front of layers (the affine behind an activation, the
// deviation of features): a factor a channel moves from them into the weights, so that one range
// fits all channels.
#include <optional>
#include <vector>

#include "repquant/observe/block_walk.h"

namespace repquant::reparameterize {

struct ScaledChannels {
  std::vector<Site> constants;  // of the product and, where one follows, of the sum
  // Every reader: linears, or depthwise convolutions. For convolutions that mix channels the factors
  // cost more in weights than they gave.
  std::vector<NodeId> layers;
  int64_t channels = 0;
  bool image = false;      // channels on axis 1, else the last
  bool depthwise = false;  // each row of W reads one channel
};

// With the product `mul`; nullopt where what reads it is anything but layers with quantized inputs.
std::optional<ScaledChannels> scaled_channels(const Workspace& ws, NodeId mul);

// Gives every product and sum in front of linears a constant that nothing else reads. Behind it
// equalise_channels changes numbers, never the structure: saved state is weights alone.
void own_constants(Workspace& ws);

// Largest magnitude a channel of what the layers read; `mul` is the next node of the walk.
at::Tensor channel_sizes(const Workspace& ws, observe::BlockWalk& walk, const ScaledChannels& site);

// constants / f, W diag(f) for factors that bring channels to one magnitude, as far as 1e-3 of the
// largest: all the way where each row of W reads one channel, else half the way between them and
// the columns of W, by 16 at most. Edits ws.weights; what the layers put out stays.
void equalise_channels(Workspace& ws, const ScaledChannels& site, const at::Tensor& sizes);

}  // namespace repquant::reparameterize
