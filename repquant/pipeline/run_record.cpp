#include "repquant/pipeline/run_record.h"

#include "repquant/core/version.h"
#include "repquant/pipeline/channel_ranges.h"
#include "repquant/report/plan_histograms.h"
#include "repquant/runtime/session.h"

namespace repquant {

using nlohmann::json;

namespace {

constexpr int64_t kRangeSamples = 4;

// Of the first calibration sample.
json softmax_histograms(const Calibrated& run, const Plan& plan) {
  const Tensor sample = load_batch(*run.data, std::span(run.indices).first(1));
  const Buffer& out = plan.buffers.at(static_cast<size_t>(plan.outputs.at(0)));
  Shape shape{1};
  shape.insert(shape.end(), out.item_shape.begin(), out.item_shape.end());
  Tensor result(DType::kF32, shape);
  Session session(Program::from_plan(plan), {.max_batch = 1, .pool = run.ws.pool});
  SoftmaxCodeCounter counter(plan);
  const std::vector<ConstTensorView> inputs{sample.view()};
  const std::vector<TensorView> outputs{result.view()};
  session.run_tapped(inputs, outputs, [&](const Step& step, int index, ConstTensorView value) {
    counter.observe(step, index, value);
  });
  return counter.histograms();
}

}  // namespace

std::map<std::string, double> layer_sqnr(const Report& report) {
  std::map<std::string, double> layers;
  for (const Measurement& row : report.rows()) {
    if (row.stage.rfind("after:", 0) == 0 && row.metric == "sqnr_db")
      layers[row.subject] = row.value;
  }
  return layers;
}

json run_record(const QuantizeJob& job, const Calibrated& run, const Plan& plan,
                const QuantizeOutcome& outcome) {
  json measurements = json::array();
  for (const Measurement& row : outcome.report.rows()) {
    measurements.push_back({{"stage", row.stage},
                            {"subject", row.subject},
                            {"metric", row.metric},
                            {"value", row.value}});
  }
  return {{"schema", "repquant/1"},
          {"verb", "quantize"},
          {"version", kVersion},
          {"model",
           {{"file", job.model.filename().string()},
            {"weights_sha256", run.fingerprint["model"]},
            {"bytes", outcome.model_bytes}}},
          {"artifact",
           {{"file", job.out.filename().string()},
            {"digest", outcome.digest},
            {"bytes", outcome.bytes},
            {"steps", plan.steps.size()}}},
          {"recipe", run.fingerprint["recipe"]},
          {"calibration",
           {{"count", run.indices.size()},
            {"seed", job.recipe.seed},
            {"sha256", run.fingerprint["calibration"]}}},
          {"preprocess", to_json(run.preprocess)},
          {"machine", {{"cpu", cpu_name()}}},
          {"seconds", outcome.seconds},
          {"cpu_seconds", outcome.cpu_seconds},
          {"peak_memory_bytes", outcome.peak_memory_bytes},
          {"metrics", outcome.metrics},
          {"weight_histograms", weight_code_histograms(plan)},
          {"softmax_code_histograms", softmax_histograms(run, plan)},
          {"channel_ranges", channel_ranges(run.ws, kRangeSamples)},
          {"measurements", measurements}};
}

}  // namespace repquant
