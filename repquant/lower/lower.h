#pragma once
// Graph and QuantPlan -> step list (core/plan.h): decides what is computed in integers, folds
// constants, fuses. Nothing about speed: packing, blocking and memory are the executor's.
#include <string>

#include <nlohmann/json.hpp>

#include "repquant/core/plan.h"
#include "repquant/graph/quant_plan.h"

namespace repquant {

struct LowerOptions {
  bool round_weights = false;                       // accept weights that lie off the grid
  nlohmann::json model = nlohmann::json::object();  // preprocessing, class names, ...
  nlohmann::json provenance = nlohmann::json::object();
  std::string input_name;  // empty: the graph's own
};

// `graph`: canonical, recognised, shapes inferred, every value [batch, item...]; inputs f32, i64 or
// i32 (item [] is stored as [1]).
// Weights are its constants, already rewritten by folds and already on the grid of their site: the
// codes are recomputed by the uniform law, and a weight further than 1e-3 steps from its grid is
// kInternal, naming the layer, unless `round_weights` is set.
//
// Sites and what becomes of them:
//   linear 0 (input), 1 (weight): integer `linear`. Log input with table_bits 8: the operand is the
//     level, the shift goes into the bias.
//   conv 0, 1: patch embeddings: `quantize`, `transpose` (patches), `linear`; else `conv` or
//     `depthwise` over [H, W, C], 1 x 1 as `linear`; a clamp behind them is taken into the codes.
//   multi_head_attention 0, 1, 2: integer products of `attention`. Per-head scales need one zero
//     point for all heads.
//   multi_head_attention kProbabilities: Log: table_bits 8 "table", 16 "table2", 0 "parity" (B = 2
//     only). Uniform: 8 bits "row" (codes 255 exp(x - max), the stored scale is not read), fewer
//     "uniform" with the stored scale.
//   functions of one element (gelu, relu, leaky_relu, hard_swish, ...) 0: one 8-bit table from code
//     to code, or to level, for each consumer site. Without a site: `quantize` with the function
//     where only codes are wanted, else f32 `activation`.
// A linear or norm hands out codes when every reader wants the same uniform codes, f32 otherwise.
//
// model gains "inputs" and "outputs": [{"name", "shape"}]. Equal arguments give equal plans.
//
// Errors: kUnsupported names the node and the nearest supported form (layers without a site,
// convolutions of other groups, masks, compat codes, ...); kInvalidArgument for per-channel
// activation sites that were not folded; kInternal for weights off their grid.
Plan lower(const Graph& graph, const QuantPlan& plan, const LowerOptions& options = {});

}  // namespace repquant
