#pragma once
// Simulator against runtime, step by step, bit for bit; one NaN equals another.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "repquant/core/thread_pool.h"
#include "repquant/runtime/program.h"

namespace repquant {

struct StepDifference {
  int64_t item = 0;      // of the batch
  std::string step, op;  // the first that differs, in execution order; "output" for the result
  int64_t element = 0, differing = 0, size = 0;
  double simulated = 0, executed = 0;  // at `element`, the first that differs
};

// Runs `inputs` ([N, item shape...] in the order of the plan's inputs) through both. `plan` must be
// the plan of the file, `program` what was opened from it. `on_step` sees every comparison that
// held (may be empty).
using StepCompared = std::function<void(int64_t item, const Step& step)>;
std::optional<StepDifference> first_difference(const Plan& plan,
                                               std::shared_ptr<const Program> program,
                                               const std::vector<Tensor>& inputs, ThreadPool* pool,
                                               const StepCompared& on_step = {});

}  // namespace repquant
