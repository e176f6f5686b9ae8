#pragma once
// Executes a step list straight by the scalar laws of core/format: one item at a time, single loop
// nests, 64-bit products. The independent judge of what the runtime computes: shares nothing with it.
#include <functional>
#include <vector>

#include "repquant/core/plan.h"

namespace repquant {

class Simulator {
 public:
  // Called after every step of every item with the item's output (dtype and item shape of the
  // buffer step.out[out_index]).
  using Tap = std::function<void(const Step& step, int out_index, ConstTensorView output)>;

  // Verifies the plan (verify_plan) and keeps a reference: it must outlive the simulator.
  explicit Simulator(const Plan& plan);

  // Inputs [N, item shape...] ([N] for items [1]) in the order of plan.inputs -> outputs [N, item
  // shape...]. Throws kInvalidArgument for other shapes or types. Items are computed in order, the
  // tap sees them so.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs, const Tap& tap = {}) const;

 private:
  void run_item(std::vector<Tensor>& buffers, const Tap& tap) const;

  const Plan& plan_;
  std::vector<std::vector<int8_t>> weights_;  // by step, unpacked; empty for other steps
};

}  // namespace repquant
