// repquant eval: scores a model on data.
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/data_options.h"
#include "cli/exit_codes.h"
#include "repquant/core/error.h"
#include "repquant/core/fields.h"
#include "repquant/evaluate/score_json.h"
#include "repquant/evaluate/super_resolution.h"

namespace repquant::cli {
namespace {

struct Options {
  std::string model, baseline, calibration;
  DataRequest data;
  RecipeRequest simulate;
  std::vector<std::string> minimum;
  std::vector<std::string> metrics;
  int64_t batch = 64;
  bool force_overlap = false;
  std::string pairs, tile;
};

const std::vector<std::string> kMetrics{"top1", "top5", "agreement", "kl", "snr", "mse", "psnr"};

struct Gate {
  std::string metric;
  double bound = 0;
};

// "top1=75".
Gate parse_gate(const std::string& text) {
  const size_t equals = text.find('=');
  Gate gate{text.substr(0, equals)};
  const char* begin = text.data() + (equals == std::string::npos ? text.size() : equals + 1);
  const char* end = text.data() + text.size();
  const auto [read, error] = std::from_chars(begin, end, gate.bound);
  if (error != std::errc() || read != end || !std::isfinite(gate.bound)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--min \"{}\": expected METRIC=VALUE", text));
  }
  const std::vector<std::string> gated{"top1", "top5", "agreement", "snr", "psnr"};  // more: better
  if (std::find(gated.begin(), gated.end(), gate.metric) == gated.end())
    throw Error(ErrorCode::kInvalidArgument,
                "--min: " + unknown_name("metric", gate.metric, gated));
  return gate;
}

// Before the first image is read: can every metric that was named be measured?
void check_metrics(const Options& options, const Dataset& data) {
  std::vector<std::string> wanted = options.metrics;
  for (const std::string& gate : options.minimum) wanted.push_back(parse_gate(gate).metric);
  for (const std::string& name : wanted) {
    if (name == "psnr" || (name == "mse" && data.has_targets())) continue;
    if (name == "mse") {
      throw Error(ErrorCode::kInvalidArgument, "eval: mse: expected targets",
                  "give .npz or .safetensors with an array \"target\"");
    }
    const bool accuracy = name == "top1" || name == "top5";
    if (accuracy ? data.has_labels() : !options.baseline.empty()) continue;
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("eval: {}: expected {}", name, accuracy ? "labels" : "a baseline"),
        accuracy ? "pass --labels FILE" : "pass --baseline MODEL, for example the float model");
  }
}

void check_metric_names(const Options& options) {
  for (const std::string& name : options.metrics) {
    if (std::find(kMetrics.begin(), kMetrics.end(), name) != kMetrics.end()) continue;
    throw Error(ErrorCode::kUnsupported, "eval: " + unknown_name("metric", name, kMetrics));
  }
}

Scores score(const OpenedModel& model, const Dataset& data, const Options& options,
             const Context& context, const std::string& pass) {
  EvaluateOptions evaluation;
  evaluation.batch = options.batch;
  evaluation.label_offset = options.data.label_offset;
  evaluation.pool = &context.pool;
  evaluation.sink = &context.sink;
  evaluation.stop = context.stop;
  evaluation.pass = pass;
  return evaluate(model.run, data, evaluation);
}

// What is missed, "" when nothing. No number: equal to the baseline, or nothing to rank.
std::string missed(const nlohmann::json& result, const Gate& gate) {
  if (!result.contains(gate.metric)) {
    if (gate.metric == "snr") return "";
    return fmt::format("eval: {}: these answers have none", gate.metric);
  }
  const double got = result[gate.metric].get<double>();
  if (got >= gate.bound) return "";
  return fmt::format("eval: {}: expected at least {}, got {:.4g}", gate.metric, gate.bound, got);
}

std::string describe(const Options& options, const nlohmann::json& r) {
  std::string text = fmt::format("{}  ({})\n  images     {}\n", options.model,
                                 r["kind"].get<std::string>(), r["count"].get<int64_t>());
  if (r.contains("mse")) text += fmt::format("  MSE        {:.6f}\n", r["mse"].get<double>());
  if (r.contains("top1")) {
    text += fmt::format("  top-1      {:.2f} %  [{:.2f}, {:.2f}]\n  top-5      {:.2f} %\n",
                        r["top1"].get<double>(), r["top1_interval"][0].get<double>(),
                        r["top1_interval"][1].get<double>(), r["top5"].get<double>());
  }
  if (!r.contains("baseline")) return text;
  const auto& b = r["baseline"];
  text += fmt::format("against {}\n", options.baseline);
  if (b.contains("mse")) text += fmt::format("  MSE        {:.6f}\n", b["mse"].get<double>());
  if (r.contains("agreement"))
    text += fmt::format("  agreement  {:.2f} %\n", r["agreement"].get<double>());
  if (r.contains("kl")) text += fmt::format("  KL         {:.5f} nats\n", r["kl"].get<double>());
  if (r.contains("snr")) text += fmt::format("  SNR        {:.2f} dB\n", r["snr"].get<double>());
  if (r.contains("difference")) {
    text += fmt::format("  top-1      {:+.2f} points  [{:+.2f}, {:+.2f}]\n",
                        r["difference"].get<double>(), r["difference_interval"][0].get<double>(),
                        r["difference_interval"][1].get<double>());
  }
  return text;
}

OpenedModel open(Options& options, const Context& context) {
  if (options.simulate.recipe.empty()) return open_model(options.model, context);
  if (context.parts == nullptr) {
    throw Error(ErrorCode::kUnsupported, "eval: --simulate: this build has no calibration",
                "rebuild with -DREPQUANT_TORCH=ON");
  }
  return context.parts->open_simulated(
      options.model, {options.simulate, options.calibration, &options.data, options.force_overlap},
      context);
}

void check_gates(const Options& options, Outcome& outcome) {
  for (const std::string& gate : options.minimum) {
    const std::string what = missed(outcome.result, parse_gate(gate));
    if (what.empty() || outcome.exit != kDone) continue;
    outcome.exit = kQuality;
    outcome.failure = what;
  }
}

nlohmann::json pairs_json(const OpenedModel& model, const Dataset& data, const Options& options,
                          const Context& context) {
  EvaluateOptions evaluation;
  evaluation.sink = &context.sink;
  evaluation.stop = context.stop;
  evaluation.pass = "score " + model.kind;
  const Tiling tiling = options.tile.empty() ? Tiling{} : parse_tiling(options.tile);
  nlohmann::json rows = nlohmann::json::array();
  double sum = 0;
  for (const PairScore& score : evaluate_pairs(model.run, data, options.pairs, tiling, evaluation)) {
    sum += score.psnr;
    rows.push_back({{"name", score.name}, {"psnr", score.psnr}});
  }
  return {{"count", rows.size()},
          {"kind", model.kind},
          {"psnr", sum / static_cast<double>(rows.size())},
          {"images", rows}};
}

// Super-resolution: images of any size, x / 255 unless the user says otherwise.
Outcome evaluate_images(Options& options, OpenedModel& model, const Context& context) {
  for (const std::string& name : options.metrics) {
    if (name == "psnr") continue;
    throw Error(ErrorCode::kInvalidArgument, fmt::format("eval: {}: not of --pairs", name));
  }
  model.item = {3, -1, -1};
  model.preprocess.reset();
  const auto data = open_data(options.data, model, context);
  Outcome outcome;
  outcome.result = pairs_json(model, *data, options, context);
  outcome.result["model"] = options.model;
  outcome.text = fmt::format("{}  ({})\n  PSNR-Y     {:.3f} dB, {} images\n", options.model,
                             model.kind, outcome.result["psnr"].get<double>(),
                             outcome.result["count"].get<int64_t>());
  if (!options.baseline.empty()) {
    const OpenedModel baseline = open_model(options.baseline, context);
    nlohmann::json reference = pairs_json(baseline, *data, options, context);
    reference["model"] = options.baseline;
    outcome.text += fmt::format("against {}\n  PSNR-Y     {:.3f} dB\n", options.baseline,
                                reference["psnr"].get<double>());
    outcome.result["difference"] =
        outcome.result["psnr"].get<double>() - reference["psnr"].get<double>();
    outcome.result["baseline"] = std::move(reference);
  }
  check_gates(options, outcome);
  return outcome;
}

Outcome evaluate_model(Options& options, const Context& context) {
  check_metric_names(options);
  OpenedModel model = open(options, context);
  if (!options.pairs.empty()) return evaluate_images(options, model, context);
  const bool psnr = std::find(options.metrics.begin(), options.metrics.end(), "psnr") !=
                    options.metrics.end();
  if (psnr || !options.tile.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "eval: psnr: expected --pairs",
                "pass --pairs with the folder of the original images");
  }
  const auto data = open_data(options.data, model, context);
  if (!data->has_labels() && !data->has_targets() && options.baseline.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("eval: \"{}\": no labels", options.data.data),
                "pass --labels FILE, or --baseline MODEL for agreement and KL");
  }
  check_metrics(options, *data);
  const Scores scores = score(model, *data, options, context, "score " + model.kind);
  Outcome outcome;
  outcome.result = score_json(scores);
  outcome.result["model"] = options.model;
  outcome.result["kind"] = model.kind;
  if (!options.baseline.empty()) {
    OpenedModel baseline = open_model(options.baseline, context);
    const Scores reference = score(baseline, *data, options, context, "score baseline");
    outcome.result.update(difference_json(reference, scores));
    outcome.result["baseline"] = score_json(reference);
    outcome.result["baseline"]["model"] = options.baseline;
    outcome.result["baseline"]["kind"] = baseline.kind;
  }
  outcome.text = describe(options, outcome.result);
  check_gates(options, outcome);
  return outcome;
}

}  // namespace

Run declare_eval(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model, "Artifact, or float model")->required();
  declare_data(app, options->data);
  app.add_option("--baseline", options->baseline,
                 "Model to compare with: agreement, KL, paired difference");
  app.add_option("--simulate", options->simulate.recipe,
                 "Score the float model fake-quantized by a recipe or preset");
  app.add_option("--calibration", options->calibration, "Calibration data of --simulate");
  app.add_flag("--force-overlap", options->force_overlap, "Calibration images may be scored, too");
  app.add_option("--scheme", options->simulate.scheme, "Scheme of --simulate");
  app.add_option("--set", options->simulate.set, "method.option=value of --simulate")
      ->allow_extra_args(false);
  app.add_option("--samples", options->simulate.samples, "Calibration samples of --simulate")
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", options->simulate.seed, "Seed of --simulate")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--metric", options->metrics,
                 "top1,top5,agreement,kl,snr,mse,psnr (all that can be measured)")
      ->delimiter(',');
  app.add_option("--pairs", options->pairs,
                 "Original images of --data by name: PSNR of the luma (super-resolution)");
  app.add_option("--tile", options->tile, "Size and margin of the squares that images go through");
  app.add_option("--min", options->minimum, "METRIC=VALUE; exit code 6 when it is missed")
      ->allow_extra_args(false);
  app.add_option("--batch", options->batch, "Images read at a time")->check(CLI::Range(1, 65536));
  declare_preprocess(app, options->data.preprocess);
  return [options](const Context& context) { return evaluate_model(*options, context); };
}

}  // namespace repquant::cli
