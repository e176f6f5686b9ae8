// RepQuant (Li et al. 2024): RepQ-ViT with per-channel dual clipping and weight reconstruction in
// the same pipeline. The clipping form, its loss and the reconstruction are this project's design
// (docs/methods/repquant.md); tiers fast and accurate add rotations and a log code behind GELU.
#include <fmt/format.h>

#include "repquant/methods/method.h"
#include "repquant/reconstruct/sequential.h"
#include "repquant/reparameterize/rotate.h"

namespace repquant::methods_rows {
namespace {

const std::vector<std::string> kSwitch{"tier", "on", "off"};

// Every field but `tier` may stay at "tier" (numbers: 0), which takes the tier's value.
struct Options {
  std::string tier = "fast";
  std::string clip = "tier";
  std::string rotate = "tier";
  std::string log_gelu = "tier";
  std::string gelu_table = "tier";
  std::string centre_values = "tier";
  std::string ridge = "tier";
  std::string gptq = "tier";
  std::string blocks = "tier";
  std::string ranges = "tier";
  std::string bias_correction = "tier";
  int steps = 0;
  int batch = 0;
  int clip_steps = 200;
  double damping = 0.01;
  double lr_weight = 3e-3;
  double lr_scale = 1e-3;
  double lr_bias = 3e-4;
  double lr_norm = 1e-3;
  double token_weight = -1;
  template <class V> void visit(V&& v) {
    v(tier, "tier", "Sets the defaults of what follows",
      Choices{{"paper", "fast", "accurate", "none"}});
    v(clip, "clip", "Bounds of norm outputs",
      Choices{{"tier", "none", "percentile", "upper", "symmetric", "grid", "learned"}});
    v(rotate, "rotate", "Offline rotations of the residual stream and of heads", Choices{kSwitch});
    v(log_gelu, "log_gelu", "Log code with shift for inputs behind GELU or SiLU", Choices{kSwitch});
    v(gelu_table, "gelu_table",
      "8-bit code before GELU, which then is a table; eight_bit: where a W8A8 product follows, "
      "safe: there and before codes of 4 bits, auto: where it costs less than 0.1 dB",
      Choices{{"tier", "on", "off", "eight_bit", "safe", "auto"}});
    v(centre_values, "centre_values", "Move the mean of the attention output into biases",
      Choices{kSwitch});
    v(ridge, "ridge", "T0: ridge regression against the activation error", Choices{kSwitch});
    v(gptq, "gptq", "T1: second-order rounding of weights", Choices{kSwitch});
    v(blocks, "blocks", "T2: few-step block reconstruction", Choices{kSwitch});
    v(ranges, "ranges",
      "Range search of activations and weights; minmax: of activations, weights by mse",
      Choices{{"tier", "percentile", "mse", "minmax"}});
    v(bias_correction, "bias_correction", "Correct biases for the weight error", Choices{kSwitch});
    v(steps, "steps", "Adam steps a block (0: of the tier)", Between{0, 100000});
    v(batch, "batch", "Images a step (0: of the tier)", Between{0, 4096});
    v(clip_steps, "clip_steps", "Adam steps of learned clipping a norm", Between{0, 100000});
    v(damping, "damping", "GPTQ damping, relative to the mean diagonal", Between{0, 10});
    v(lr_weight, "lr_weight", "Rate of weights, in units of their step", Between{0, 1});
    v(lr_scale, "lr_scale", "Rate of log-scales", Between{0, 1});
    v(lr_bias, "lr_bias", "Rate of biases", Between{0, 1});
    v(lr_norm, "lr_norm", "Rate of norm gains and biases", Between{0, 1});
    v(token_weight, "token_weight",
      "Share of the block loss that weighs tokens by their effect on the output (-1: of the tier)",
      Between{-1, 1});
  }
};

bool on(const std::string& given, bool of_tier) {
  return given == "tier" ? of_tier : given == "on";
}

reconstruct::SequentialOptions resolve(const Options& o) {
  const bool paper = o.tier == "paper", accurate = o.tier == "accurate";
  const bool fast = o.tier == "fast" || accurate;
  reconstruct::SequentialOptions s;
  s.clip = o.clip != "tier" ? o.clip : paper ? "learned" : fast ? "symmetric" : "percentile";
  s.clip_steps = o.clip_steps;
  s.activation_range = o.ranges != "tier" ? o.ranges : fast ? "mse" : "percentile";
  s.weight_range = s.activation_range == "minmax" ? "mse" : s.activation_range;
  s.softmax_range = fast ? "output" : "percentile";
  s.log_gelu = on(o.log_gelu, fast);
  s.gelu_table = o.gelu_table != "tier" ? o.gelu_table
                 : accurate             ? "eight_bit"
                 : fast                 ? "safe"
                                        : "off";
  s.centre_values = on(o.centre_values, accurate);
  s.ridge = on(o.ridge, paper);
  s.gptq = on(o.gptq, paper || fast);
  s.damping = o.damping;
  s.bias_correction = on(o.bias_correction, true);
  s.blocks = on(o.blocks, paper || accurate);
  s.training.steps = o.steps > 0 ? o.steps : paper ? 80 : 150;
  s.training.batch = o.batch > 0 ? o.batch : 16;
  s.training.lr_weight = o.lr_weight;
  s.training.lr_scale = o.lr_scale;
  s.training.lr_bias = o.lr_bias;
  s.training.lr_norm = o.lr_norm;
  s.token_weight = o.token_weight >= 0 ? o.token_weight : accurate ? 0.5 : 0.0;
  return s;
}

void rotate(Workspace& ws) {
  std::string reason;
  if (!reparameterize::rotate_residual(ws, ws.seed, &reason) && ws.sink != nullptr) {
    ws.sink->warning("W005", "repquant", "residual stream not rotated: " + reason,
                     "outliers stay in their channels: low bits lose accuracy");
  }
  const int heads = reparameterize::rotate_heads(ws, ws.seed);
  ws.report.add({"reparameterize", "model", "attention_nodes_rotated", static_cast<double>(heads)});
}

void run(Workspace& ws, const Options& options) {
  const reconstruct::SequentialOptions sequential = resolve(options);
  if (on(options.rotate, options.tier == "fast" || options.tier == "accurate")) rotate(ws);
  reconstruct::calibrate(ws, sequential);
  ws.applied.push_back("fold");
  if (sequential.bias_correction) ws.applied.push_back("bias_correction");
  if (sequential.gptq) ws.applied.push_back("gptq");
}

constexpr Method make_row() {
  Method row = make_method<Options, run>(
      "repquant",
      "RepQ-ViT with dual clipping, weight reconstruction and rotations, in three tiers",
      "Li et al. 2024 (arXiv 2402.05628)", {.data = true, .gradients = true});
  row.trained_samples = [](const OptionValues& values) -> int64_t {
    const reconstruct::SequentialOptions s = resolve(read_fields<Options>(values, "repquant"));
    return s.blocks ? s.training.batch : 0;
  };
  return row;
}

}  // namespace

extern const Method repquant;
constinit const Method repquant = make_row();

}  // namespace repquant::methods_rows
