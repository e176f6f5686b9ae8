#pragma once
// A Program as a Model.
#include <memory>
#include <vector>

#include "repquant/core/thread_pool.h"
#include "repquant/evaluate/evaluate.h"
#include "repquant/runtime/program.h"

namespace repquant {

// One number an item, [N], is [N, 1] for a plan; everything else as it is.
std::vector<Tensor> plan_inputs(const Plan& plan, Model::Inputs inputs);

// Inputs in the order of the plan, one output. Items of a batch are spread over the workers of
// `pool` (outlives the result), one session each; the answers do not depend on it. Throws
// kUnsupported for programs with more outputs; calls throw kInvalidArgument for items of the wrong
// type or shape.
Model artifact_model(std::shared_ptr<const Program> program, ThreadPool& pool);

}  // namespace repquant
