#pragma once
// Block reconstruction by gradient (T2): few Adam steps on the block's output error, weights and
// scales trained through their quantizers.
#include <map>

#include "repquant/observe/block_walk.h"

namespace repquant::reconstruct {

struct TrainingOptions {
  int steps = 150;
  int batch = 16;           // images a step
  double lr_weight = 3e-3;  // weights in units of their step
  double lr_scale = 1e-3;   // log-scales
  double lr_bias = 3e-4;
  double lr_norm = 1e-3;    // gains and biases of norms
  double held_out = 0.125;  // share of the samples that only judges
  bool weights = true;
  at::Tensor importance;  // of the block output's elements, broadcast over it; undefined: all 1
};

struct TrainingResult {
  double before = 0.0, after = 0.0;  // held-out block output MSE; after <= before
};

// `latent`: weights before rounding, by linear node; missing ones start on their grid. Inputs are
// the quantized prefix, targets the float block output. Edits ws.weights and ws.plan; rolled back
// when the held-out error did not fall.
TrainingResult train_block(Workspace& ws, const observe::Block& block,
                           const observe::Chunks& inputs, const observe::Chunks& targets,
                           const std::map<NodeId, at::Tensor>& latent,
                           const TrainingOptions& options, uint64_t seed);

}  // namespace repquant::reconstruct
