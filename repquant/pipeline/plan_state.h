#pragma once
// A QuantPlan as JSON and tensors, exactly: for checkpoints.
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "repquant/graph/quant_plan.h"

namespace repquant {

// Numbers that must keep every bit go into `tensors`, under "site<i>.<field>".
nlohmann::json store_plan(const QuantPlan& plan, std::map<std::string, Tensor>& tensors);
// Throws kCorruptFile for anything store_plan does not write.
QuantPlan restore_plan(const nlohmann::json& json, const std::map<std::string, Tensor>& tensors);

}  // namespace repquant
