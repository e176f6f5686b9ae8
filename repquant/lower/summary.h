#pragma once
// A Plan as text and JSON, for `inspect`.
#include <string>

#include <nlohmann/json.hpp>

#include "repquant/core/plan.h"

namespace repquant {

// {"steps": [{"name", "op", "inputs": ["f32 [197, 192]"], "output", "weight_bits", "parameters",
// "bytes"}],
//  "weights": n, "bytes": n, "inputs", "outputs"}. bytes: all tensors of the step as stored.
nlohmann::json plan_summary(const Plan& plan);

// One line a step (name, op, operands -> result, weight bits, bytes), then a line of totals.
std::string print(const Plan& plan);

}  // namespace repquant
