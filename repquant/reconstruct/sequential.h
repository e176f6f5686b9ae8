#pragma once
// The calibration walk that RepQ-ViT and RepQuant share: units in order, every site observed behind
// an already quantized prefix, weights rounded as soon as their input is settled.
#include <string>

#include "repquant/interpret/workspace.h"
#include "repquant/reconstruct/block_training.h"

namespace repquant::reconstruct {

struct SequentialOptions {
  std::string activation_range = "percentile";  // minmax, percentile, mse
  std::string weight_range = "percentile";      // minmax, percentile, mse
  bool fold = true;                             // per-channel norm outputs, folded
  std::string clip = "percentile";              // none, percentile, upper, symmetric, grid, learned
  int clip_steps = 200;
  std::string softmax_range = "percentile";  // percentile, output (error of P V)
  bool middle_zero = true;                   // z~ = 2^(b-1); false: clamp(rne(mean z))
  bool log_gelu = false;                     // log code with shift for inputs behind GELU or SiLU
  std::string gelu_table = "off";            // 8-bit code before GELU: off, on, auto, eight_bit, safe
  bool centre_values = false;                // b_v -= E[P v], b_o += W_o E[P v]
  bool ridge = false;                        // T0
  bool gptq = false;                         // T1
  bool act_order = true;
  double damping = 0.01;
  bool bias_correction = true;
  bool compat = false;  // published levels and order of work
  bool blocks = false;  // T2
  // Share of T2's loss that follows how much the model's output depends on each token.
  double token_weight = 0.0;
  TrainingOptions training;
};

// Calibrates every site of ws.targets. Saves a checkpoint after each unit; stops at ws.stop.
void calibrate(Workspace& ws, const SequentialOptions& options);

}  // namespace repquant::reconstruct
