// GPTQ (Frantar et al. 2022) on weights alone: activations are rounded as the plan already says, or
// stay float.
#include "repquant/methods/method.h"
#include "repquant/reconstruct/sequential.h"

namespace repquant::methods_rows {
namespace {

struct Options {
  bool act_order = true;
  double damping = 0.01;
  std::string observer = "mse";
  template <class V> void visit(V&& v) {
    v(act_order, "act_order", "Columns by descending second moment of their input");
    v(damping, "damping", "Relative to the mean diagonal", Between{0, 10});
    v(observer, "observer", "Range rule of weights", Choices{{"minmax", "percentile", "mse"}});
  }
};

void run(Workspace& ws, const Options& options) {
  for (const auto& [site, assignment] : ws.plan.all()) {
    if (assignment.role == Role::kWeight) {
      throw Error(ErrorCode::kInvalidArgument,
                  "gptq: weights are already rounded by \"" + assignment.set_by + "\"",
                  "set weights = false there, or drop this pass");
    }
  }
  const std::map<Site, SiteTarget> all = ws.targets;
  std::erase_if(ws.targets, [](const auto& entry) { return entry.second.role != Role::kWeight; });
  reconstruct::SequentialOptions sequential;
  sequential.weight_range = options.observer;
  sequential.fold = false;
  sequential.gptq = true;
  sequential.act_order = options.act_order;
  sequential.damping = options.damping;
  sequential.bias_correction = false;
  reconstruct::calibrate(ws, sequential);
  ws.targets = all;
  ws.applied.push_back("gptq");
}

}  // namespace

extern const Method gptq;
constinit const Method gptq = make_method<Options, run>("gptq", "Second-order rounding of weights",
                                                        "Frantar et al. 2022 (arXiv 2210.17323)",
                                                        {.data = true, .gradients = false});

}  // namespace repquant::methods_rows
