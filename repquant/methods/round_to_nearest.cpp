// Round to nearest: ranges from min-max or percentiles, no rewrites, no correction. The baseline.
#include "repquant/methods/method.h"
#include "repquant/reconstruct/sequential.h"

namespace repquant::methods_rows {
namespace {

struct Options {
  std::string observer = "minmax";
  bool weights = true;
  bool activations = true;
  template <class V> void visit(V&& v) {
    v(observer, "observer", "Range rule of activations and weights",
      Choices{{"minmax", "percentile", "mse"}});
    v(weights, "weights", "Quantize weights");
    v(activations, "activations", "Quantize activations");
  }
};

void run(Workspace& ws, const Options& options) {
  const std::map<Site, SiteTarget> all = ws.targets;
  std::erase_if(ws.targets, [&](const auto& entry) {
    return entry.second.role == Role::kWeight ? !options.weights : !options.activations;
  });
  // Uniform codes everywhere: a baseline has no logarithms.
  for (auto& [site, target] : ws.targets) {
    if (site.input == kProbabilities && target.format == "auto") target.format = "uniform";
  }
  reconstruct::SequentialOptions sequential;
  sequential.activation_range = options.observer;
  sequential.weight_range = options.observer;
  sequential.fold = false;
  sequential.bias_correction = false;
  reconstruct::calibrate(ws, sequential);
  ws.targets = all;
}

}  // namespace

extern const Method round_to_nearest;
constinit const Method round_to_nearest = make_method<Options, run>(
    "round_to_nearest", "Min-max or percentile ranges, plain rounding: the baseline",
    "Jacob et al. 2018 (arXiv 1712.05877)", {.data = true, .gradients = false});

}  // namespace repquant::methods_rows
