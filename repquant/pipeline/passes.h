#pragma once
// Runs the passes of a recipe over a workspace and turns the result into a plan.
#include "repquant/core/plan.h"
#include "repquant/data/dataset.h"
#include "repquant/interpret/workspace.h"
#include "repquant/pipeline/recipe.h"

namespace repquant {

// Calibration samples `indices` of `dataset` as graph inputs. Both must outlive the result.
Batches batches_of(const Dataset& dataset, const std::vector<int64_t>& indices);

// Stage of the layer-wise error of the same scheme rounded to nearest: what the passes start from.
inline constexpr const char* kPlainRounding = "plain_rounding";

// Sets the targets and measures plain rounding, then runs each pass: refuses options that do not
// exist, times it, records the layer-wise error before and after (stages "before:<pass>" and
// "after:<pass>"), verifies the graph.
void run_passes(Workspace& ws, const Recipe& recipe);

// Weights into the graph, then lowering. `model`: preprocessing, class names; `provenance`: recipe,
// data.
Plan finish(Workspace& ws, const nlohmann::json& model, const nlohmann::json& provenance);

}  // namespace repquant
