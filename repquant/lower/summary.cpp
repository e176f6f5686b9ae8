#include "repquant/lower/summary.h"

#include <algorithm>

#include <fmt/format.h>

namespace repquant {
namespace {

std::string describe(const Buffer& buffer) {
  std::string type(name_of(buffer.dtype));
  if (buffer.dtype == DType::kU8) type = fmt::format("u{}", buffer.bits);
  else std::transform(type.begin(), type.end(), type.begin(), [](char c) { return c | 0x20; });
  return type + " " + to_string(buffer.item_shape);
}

const Buffer& at(const Plan& plan, int index) {
  return plan.buffers.at(static_cast<size_t>(index));
}

nlohmann::json step_summary(const Plan& plan, const Step& step) {
  nlohmann::json row = {{"name", step.name}, {"op", step.op}, {"inputs", nlohmann::json::array()}};
  for (const int i : step.in) row["inputs"].push_back(describe(at(plan, i)));
  row["output"] = describe(at(plan, step.out.at(0)));
  int64_t bytes = 0;
  for (const auto& [role, name] : step.tensors) {
    const PlanTensor& tensor = plan.tensors.at(name);
    bytes += static_cast<int64_t>(tensor.data.bytes());
    if (role == "lut" && (step.op == "linear" || step.op == "conv")) row["fused_table"] = true;
    if (role != "w") continue;
    row["weight_bits"] = tensor.bits;
    row["parameters"] = element_count(tensor.logical_shape);
  }
  for (const auto& [key, text] : step.strings) row[key] = text;
  row["bytes"] = bytes;
  return row;
}

std::string line(const nlohmann::json& row, size_t width) {
  std::string operands;
  for (const auto& input : row["inputs"]) {
    operands += (operands.empty() ? "" : ", ") + input.get<std::string>();
  }
  std::string text =
      fmt::format("{:<{}}  {:<12}  {} -> {}", row["name"].get<std::string>(), width,
                  row["op"].get<std::string>(), operands, row["output"].get<std::string>());
  if (row.contains("weight_bits")) text += fmt::format("  w{}", row["weight_bits"].get<int>());
  if (row.value("fused_table", false)) text += "  + table";
  for (const char* key : {"codes", "pv", "kind"}) {
    if (row.contains(key)) text += "  " + row[key].get<std::string>();
  }
  const int64_t bytes = row["bytes"].get<int64_t>();
  if (bytes > 0) text += fmt::format("  {} bytes", bytes);
  return text + "\n";
}

}  // namespace

nlohmann::json plan_summary(const Plan& plan) {
  nlohmann::json summary = {{"steps", nlohmann::json::array()},
                            {"inputs", nlohmann::json::array()},
                            {"outputs", nlohmann::json::array()}};
  int64_t parameters = 0, bytes = 0;
  for (const Step& step : plan.steps) {
    summary["steps"].push_back(step_summary(plan, step));
    const nlohmann::json& row = summary["steps"].back();
    parameters += row.value("parameters", int64_t{0});
    bytes += row["bytes"].get<int64_t>();
  }
  for (const int i : plan.inputs) summary["inputs"].push_back(describe(at(plan, i)));
  for (const int i : plan.outputs) summary["outputs"].push_back(describe(at(plan, i)));
  summary["weights"] = parameters;
  summary["bytes"] = bytes;
  return summary;
}

std::string print(const Plan& plan) {
  const nlohmann::json summary = plan_summary(plan);
  size_t width = 0;
  for (const auto& row : summary["steps"])
    width = std::max(width, row["name"].get<std::string>().size());
  std::string text;
  for (const auto& row : summary["steps"]) text += line(row, width);
  return text + fmt::format("{} steps, {} weights, {} bytes\n", plan.steps.size(),
                            summary["weights"].get<int64_t>(), summary["bytes"].get<int64_t>());
}

}  // namespace repquant
