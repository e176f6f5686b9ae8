#pragma once
// Calibrates one unit (stem, block or head) node by node. Used by the calibration walk alone.
#include <map>

#include "repquant/observe/block_walk.h"
#include "repquant/reconstruct/second_order.h"
#include "repquant/reconstruct/sequential.h"

namespace repquant::reconstruct {

class Unit {
 public:
  Unit(Workspace& ws, const SequentialOptions& options, const observe::Block& block,
       const observe::Chunks& inputs);

  // Sets the plan and the weights of every target in the unit; returns the unit's quantized output
  // (empty when `last`).
  observe::Chunks calibrate(bool last);
  // Weights as they were before rounding, in the coordinates of the rounded ones.
  const std::map<NodeId, at::Tensor>& latent() const { return latent_; }
  // Codes before activations that wait for a decision (gelu_table "auto"), not in the plan.
  const std::map<NodeId, QParams>& tables() const { return tables_; }

 private:
  void norm(NodeId id);
  void product(NodeId id);
  void layer(NodeId id);
  void attention(NodeId id);
  void activation(NodeId id);

  QParams input_range(const Site& site, const SiteTarget& target);
  QParams uniform_range(const Site& site, const QuantSpec& spec);
  QParams probabilities_range(NodeId id, const SiteTarget& target);
  QParams shifted_log_range(const Site& site, const SiteTarget& target, double shift);
  void round_weight(NodeId id);
  void apply_ridge(NodeId id);
  Moments input_moments(NodeId id);
  at::Tensor sample_rows(const Site& site, int64_t count);
  void centre_values(NodeId id);
  void set(const Site& site, Role role, QParams params);
  // A fold there would change what training and the choice of tables compare with the float model.
  bool is_compared(ValueId id) const;
  double shift_behind(NodeId id) const;  // > 0: the input is a GELU or SiLU output

  Workspace& ws_;
  const SequentialOptions& options_;
  const observe::Block& block_;
  observe::BlockWalk walk_;
  std::map<NodeId, at::Tensor> latent_;
  std::map<NodeId, QParams> tables_;
};

// The range rule of weights, one scale a row.
QParams weight_range(const at::Tensor& weight, const SiteTarget& target, const std::string& rule,
                     ThreadPool& pool);
// Published order: folds every norm after the whole model was calibrated, with the mean zero point,
// and searches the consumers' weight ranges again.
void fold_published(Workspace& ws, const SequentialOptions& options);

}  // namespace repquant::reconstruct
