#include "cli/rotated_steps.h"

#include <algorithm>
#include <vector>

namespace repquant::cli {
namespace {

bool is_norm(const Step& step) { return step.op == "layer_norm" || step.op == "rms_norm"; }

bool moves(const Step& step) {
  return step.op == "slice" || step.op == "transpose" || step.op == "mean_rows" ||
         step.op == "copy_rows" || step.op == "prepend" || step.op == "add";
}

class Stream {
 public:
  explicit Stream(const Plan& plan) : plan_(plan), in_(plan.buffers.size(), false) {
    for (const Step& step : plan.steps) {
      if (is_norm(step)) mark(step.in.at(0));
    }
    while (changed_) {
      changed_ = false;
      for (const Step& step : plan.steps) spread(step);
    }
  }
  bool holds(int buffer) const { return in_[static_cast<size_t>(buffer)]; }

 private:
  void mark(int buffer) {
    const auto i = static_cast<size_t>(buffer);
    if (in_[i] || plan_.buffers[i].dtype != DType::kF32) return;
    in_[i] = changed_ = true;
  }
  // A sum, a copy and a residual stay in one basis, whichever end is known.
  void spread(const Step& step) {
    const bool residual = step.op == "linear" && step.in.size() == 2;
    if (!moves(step) && !residual) return;
    std::vector<int> shared(step.in.begin() + (residual ? 1 : 0), step.in.end());
    shared.insert(shared.end(), step.out.begin(), step.out.end());
    if (std::none_of(shared.begin(), shared.end(), [&](int b) { return holds(b); })) return;
    for (const int buffer : shared) mark(buffer);
  }

  const Plan& plan_;
  std::vector<bool> in_;
  bool changed_ = true;
};

}  // namespace

Rotations rotations(const Plan& plan) {
  Rotations found;
  const nlohmann::json none = nlohmann::json::array();
  const auto list = [&](const nlohmann::json& in, const char* key) {
    return in.is_object() && in.contains(key) && in[key].is_array() ? in[key] : none;
  };
  for (const auto& name : list(plan.provenance, "rewrites")) {
    found.residual |= name == "rotate_residual";
    found.heads |= name == "rotate_heads";
  }
  const nlohmann::json::json_pointer seed("/recipe/data/seed");
  if ((found.residual || found.heads) && plan.provenance.contains(seed) &&
      plan.provenance[seed].is_number_unsigned()) {
    found.seed = plan.provenance[seed].get<uint64_t>();
  }
  return found;
}

std::set<std::string> rotated_steps(const Plan& plan, const Rotations& rotations) {
  std::set<std::string> names;
  if (rotations.residual) {
    const Stream stream(plan);
    std::set<int> copies;  // of what a norm puts out, in the basis of the stream
    for (const Step& step : plan.steps) {
      const bool copied = moves(step) && !step.in.empty() && copies.count(step.in[0]) > 0;
      if (is_norm(step) || copied) copies.insert(step.out.begin(), step.out.end());
      if (is_norm(step) || copied || stream.holds(step.out.at(0))) names.insert(step.name);
    }
  }
  if (!rotations.heads) return names;
  std::set<int> operands;
  for (const Step& step : plan.steps) {
    if (step.op != "attention") continue;
    names.insert(step.name);
    operands.insert(step.in.begin(), step.in.end());
  }
  for (const Step& step : plan.steps) {
    if (operands.count(step.out.at(0)) > 0) names.insert(step.name);
  }
  return names;
}

}  // namespace repquant::cli
