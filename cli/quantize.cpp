// repquant quantize: a float model into an artifact.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/data_options.h"
#include "cli/exit_codes.h"
#include "cli/full_parts.h"
#include "repquant/core/error.h"
#include "repquant/pipeline/quantize.h"
#include "repquant/pipeline/run_record.h"

namespace repquant::cli {
namespace {

struct Options {
  std::string model, out, resume = "auto", work_dir, eval_range;
  RecipeRequest recipe;
  DataRequest data;
  QuantizeJob job;
  bool dry_run = false;
};

QuantizeJob make_job(Options& options, const Context& context) {
  QuantizeJob job = options.job;
  job.model = options.model;
  job.out = options.out;
  job.recipe = resolve_recipe(options.recipe);
  job.data = options.data.data;
  job.data_options = options.data.options;
  job.preprocess = options.data.preprocess;
  job.label_offset = options.data.label_offset;
  job.work_dir = options.work_dir;
  job.resume = parse_resume(options.resume);
  job.memory_cap = context.common.memory;
  if (!options.eval_range.empty()) set_range(job.eval_options, options.eval_range);
  if (job.out.empty() && !options.dry_run) {
    throw Error(ErrorCode::kInvalidArgument, "quantize: expected -o OUT",
                "for example -o model_w4a4.rq.safetensors");
  }
  return job;
}

std::string plan_text(const nlohmann::json& plan, const Recipe& recipe) {
  std::string text = fmt::format(
      "model   {}\nscheme  {}\nsamples {}\nlayers  {} quantized, {} in float\nweights about {} "
      "bytes\nmemory  {} MiB at least\n",
      plan["model"]["file"].get<std::string>(), plan["scheme"].get<std::string>(),
      plan["samples"].get<int64_t>(), plan["layers"].size(), plan["float_layers"].size(),
      plan["estimated_bytes"].get<int64_t>(), (plan["memory_bytes"].get<int64_t>() >> 20) + 1);
  for (const auto& row : plan["layers"]) {
    const std::string bits = row.contains("weight_bits")
                                 ? fmt::format("w{}a{}", row["weight_bits"].get<int>(),
                                               row["activation_bits"].get<int>())
                                 : fmt::format("a{}", row["activation_bits"].get<int>());
    text += fmt::format("  {:<40} {:<22} {}\n", row["layer"].get<std::string>(),
                        row["op"].get<std::string>(), bits);
  }
  for (const auto& name : plan["float_layers"])
    text += fmt::format("  {:<40} float\n", name.get<std::string>());
  return text + "\nrecipe\n" + to_toml(recipe);
}

std::string score_text(const nlohmann::json& metrics) {
  std::string text;
  for (const char* when : {"before", "after"}) {
    const auto& m = metrics[when];
    if (m.contains("mse")) text += fmt::format("{:<9} MSE {:.6f}\n", when, m["mse"].get<double>());
    if (!m.contains("top1")) continue;
    text += fmt::format("{:<9} top-1 {:.2f} % [{:.2f}, {:.2f}]  top-5 {:.2f} %\n", when,
                        m["top1"].get<double>(), m["top1_interval"][0].get<double>(),
                        m["top1_interval"][1].get<double>(), m["top5"].get<double>());
  }
  const auto& d = metrics["difference"];
  if (d.contains("agreement"))
    text += fmt::format("agreement {:.2f} %\n", d["agreement"].get<double>());
  if (d.contains("kl")) text += fmt::format("KL        {:.5f} nats\n", d["kl"].get<double>());
  if (d.contains("snr")) text += fmt::format("SNR       {:.2f} dB\n", d["snr"].get<double>());
  return text;
}

std::string outcome_text(const QuantizeOutcome& done) {
  std::string text = fmt::format("{}: {} -> {} bytes in {:.1f} s, peak memory {:.0f} MiB\n",
                                 done.artifact.string(), done.model_bytes, done.bytes, done.seconds,
                                 static_cast<double>(done.peak_memory_bytes) / 1048576);
  std::vector<std::pair<double, std::string>> worst;
  for (const auto& [layer, sqnr] : layer_sqnr(done.report)) worst.emplace_back(sqnr, layer);
  std::sort(worst.begin(), worst.end());
  for (size_t i = 0; i < std::min<size_t>(3, worst.size()); ++i) {
    text +=
        fmt::format("{:<9} {} {:.1f} dB\n", i == 0 ? "worst" : "", worst[i].second, worst[i].first);
  }
  if (done.metrics.is_object()) text += score_text(done.metrics);
  return text +
         fmt::format(
             "digest    {}\nrecord    {}\nrecipe    {}\nnext      repquant eval {} --data DATA\n",
             done.digest, done.run_record.string(), done.recipe.string(), done.artifact.string());
}

Outcome run(Options& options, const Context& context) {
  const QuantizeJob job = make_job(options, context);
  const RunContext run_context{context.sink, context.pool, context.stop};
  Outcome outcome;
  if (options.dry_run) {
    outcome.result = describe(job, run_context);
    outcome.text = plan_text(outcome.result, job.recipe);
    return outcome;
  }
  const QuantizeOutcome done = quantize_model(job, run_context);
  outcome.result = {{"artifact", done.artifact.string()},
                    {"bytes", done.bytes},
                    {"peak_memory_bytes", done.peak_memory_bytes},
                    {"seconds", done.seconds},
                    {"cpu_seconds", done.cpu_seconds},
                    {"digest", done.digest},
                    {"model_bytes", done.model_bytes},
                    {"run_record", done.run_record.string()},
                    {"recipe_file", done.recipe.string()},
                    {"recipe", to_json(job.recipe)}};
  if (done.metrics.is_object()) outcome.result["metrics"] = done.metrics;
  outcome.measurements = done.report.rows();
  outcome.text = outcome_text(done);
  return outcome;
}

}  // namespace

Run declare_quantize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model, "Float model (ONNX)")->required();
  app.add_option("-o,--output", options->out, "Artifact to write, NAME.rq.safetensors");
  declare_recipe(app, options->recipe);
  declare_data(app, options->data);
  app.add_option("--eval-data", options->job.eval_data, "Score before and after on this data");
  app.add_option("--eval-labels", options->job.eval_options.labels, "Labels of --eval-data");
  app.add_option("--eval-range", options->eval_range, "Part of --eval-data, begin:end");
  app.add_flag("--force-overlap", options->job.force_overlap,
               "Calibration images may be scored, too");
  app.add_option("--resume", options->resume, "auto, never or require");
  app.add_option("--work-dir", options->work_dir, "Saved state (default OUT.work)");
  app.add_flag("--keep", options->job.keep, "Keep the work folder");
  app.add_flag("--force", options->job.force, "Replace an existing output");
  app.add_flag("--dry-run", options->dry_run, "Print the plan and stop");
  declare_preprocess(app, options->data.preprocess);
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace repquant::cli
