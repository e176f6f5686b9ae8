#pragma once
// Folds a per-channel activation quantizer after a norm into the norm and its consumers, so that
// one scale and one zero point remain (RepQ-ViT, arXiv 2212.08254, section 3.2). Codes stay what
// they were.
#include <optional>
#include <string>
#include <vector>

#include "repquant/interpret/workspace.h"

namespace repquant::reparameterize {

struct NormConsumers {
  NodeId norm = -1;
  std::vector<NodeId> linears;  // every reader of the norm output
};

// The linears that read the norm; nullopt when the norm has no private gain and bias or when a
// reader cannot be rewritten (`reason` says which): a fold must reach every consumer.
std::optional<NormConsumers> norm_consumers(const Workspace& ws, NodeId norm, std::string* reason);

// A norm that quantized linears and others read gets a twin in front of it for the linears: a fold
// then reaches all of the twin's readers. What the norm puts out stays; the twin has a gain and a
// bias of its own. Returns how many were split.
int split_norms(Workspace& ws);
NodeId twin_of(const Graph& graph, NodeId norm);  // -1: it was not split

// Makes channels whose scale is below 1e-3 of the mean wider, about their midpoint. Throws
// kInvalidArgument when a scale is above 1e3 of the mean.
QParams guard_channels(QParams channels);

// y~ = (y - lower)/r - s~ z~, r = scale/s~, s~ = mean(scale):
//   gain~ = gain/r, bias~ = (bias - lower)/r - s~ z~, W~ = W diag(r), b~ = b + W lower + s~ z~ sum
//   W~.
// `channels` has lower and scale per channel; `zero` is z~ (an integer but in compat mode). Edits
// ws.weights. Returns the per-tensor parameters of the consumers' input.
QParams fold_norm(Workspace& ws, const NormConsumers& site, const QParams& channels, double zero,
                  bool compat = false);

// Per-channel values mapped to folded coordinates: (y - lower)/r - s~ z~.
at::Tensor to_folded(const at::Tensor& y, const QParams& channels, double zero);

}  // namespace repquant::reparameterize
