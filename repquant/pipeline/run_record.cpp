#include "repquant/pipeline/run_record.h"

#include "repquant/core/version.h"

namespace repquant {

using nlohmann::json;

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
          {"peak_memory_bytes", outcome.peak_memory_bytes},
          {"metrics", outcome.metrics},
          {"measurements", measurements}};
}

}  // namespace repquant
