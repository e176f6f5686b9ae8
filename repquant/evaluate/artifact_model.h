#pragma once
// A Program as a Model.
#include <memory>

#include "repquant/core/thread_pool.h"
#include "repquant/evaluate/evaluate.h"
#include "repquant/runtime/program.h"

namespace repquant {

// One input, one output. Items of a batch are spread over the workers of `pool` (outlives the
// result), one session each; the answers do not depend on it. Throws kUnsupported for programs with
// more inputs or outputs; calls throw kInvalidArgument for items of the wrong shape.
Model artifact_model(std::shared_ptr<const Program> program, ThreadPool& pool);

}  // namespace repquant
