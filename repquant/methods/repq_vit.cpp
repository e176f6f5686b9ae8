// RepQ-ViT (Li et al., ICCV 2023): calibrate with per-channel quantizers after LayerNorm and
// log-sqrt2 after softmax, then fold the channels into one scale. Strict codes by default.
#include <algorithm>

#include "repquant/methods/method.h"
#include "repquant/reconstruct/sequential.h"

namespace repquant::methods_rows {
namespace {

struct Options {
  bool compat = false;
  bool bias_correction = true;
  std::string zero_point = "middle";
  template <class V> void visit(V&& v) {
    v(compat, "compat",
      "Published levels: real zero points, 2^b + 1 softmax outputs; simulation only");
    v(bias_correction, "bias_correction", "Correct biases for the weight error (strict mode)");
    v(zero_point, "zero_point", "Zero point after the fold", Choices{{"middle", "mean"}});
  }
};

// The published settings: 2^b + 1 levels, log-sqrt2 at any width, patch embedding weights as narrow
// as the others.
void publish(Workspace& ws) {
  int weight_bits = 8;
  for (const auto& [site, target] : ws.targets) {
    if (target.role == Role::kWeight) weight_bits = std::min(weight_bits, target.bits);
  }
  for (auto& [site, target] : ws.targets) {
    target.compat = true;
    if (target.role == Role::kWeight) target.bits = weight_bits;
    if (site.input == kProbabilities && target.format == "auto") target.format = "log_sqrt2";
  }
}

void run(Workspace& ws, const Options& options) {
  const std::map<Site, SiteTarget> all = ws.targets;
  if (options.compat) publish(ws);
  reconstruct::SequentialOptions sequential;
  sequential.compat = options.compat;
  sequential.bias_correction = options.bias_correction && !options.compat;
  sequential.middle_zero = options.zero_point == "middle";
  reconstruct::calibrate(ws, sequential);
  ws.targets = all;
  ws.applied.push_back("fold");
  if (sequential.bias_correction) ws.applied.push_back("bias_correction");
}

}  // namespace

extern const Method repq_vit;
constinit const Method repq_vit = make_method<Options, run>(
    "repq_vit", "Scale reparameterization: per-channel norms folded, log-sqrt2 softmax",
    "Li et al. 2023 (arXiv 2212.08254)", {.data = true, .gradients = false});

}  // namespace repquant::methods_rows
