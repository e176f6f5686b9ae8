#include "repquant/pipeline/run_record.h"

#include "repquant/core/machine.h"
#include "repquant/core/version.h"
#include "repquant/evaluate/artifact_model.h"
#include "repquant/pipeline/channel_ranges.h"
#include "repquant/pipeline/passes.h"
#include "repquant/reconstruct/layer_error.h"
#include "repquant/report/plan_histograms.h"
#include "repquant/runtime/session.h"

namespace repquant {

using nlohmann::json;

namespace {

constexpr int64_t kRangeSamples = 4;

// Of the first calibration sample.
json softmax_histograms(const Calibrated& run, const Plan& plan) {
  const std::vector<Tensor> sample =
      plan_inputs(plan, load_inputs(*run.data, std::span(run.indices).first(1)));
  const Buffer& out = plan.buffers.at(static_cast<size_t>(plan.outputs.at(0)));
  Shape shape{1};
  shape.insert(shape.end(), out.item_shape.begin(), out.item_shape.end());
  Tensor result(DType::kF32, shape);
  Session session(Program::from_plan(plan), {.max_batch = 1, .pool = run.ws.pool});
  SoftmaxCodeCounter counter(plan);
  std::vector<ConstTensorView> inputs;
  for (const Tensor& input : sample) inputs.push_back(input.view());
  const std::vector<TensorView> outputs{result.view()};
  session.run_tapped(inputs, outputs, [&](const Step& step, int index, ConstTensorView value) {
    counter.observe(step, index, value);
  });
  return counter.histograms();
}

// Where `bench` finds it again. JSON is UTF-8; a name that is not is changed and not found.
json path_text(const std::filesystem::path& path) {
  const json text = std::filesystem::absolute(path).string();
  return json::parse(text.dump(-1, ' ', false, json::error_handler_t::replace));
}

void add_bits(json& row, const QuantPlan& plan, const char* key, const Site& site) {
  if (const Assignment* found = plan.find(site)) row[key] = found->params.spec.bits;
}

}  // namespace

json layer_rows(const Workspace& ws) {
  json rows = json::array();
  std::map<std::string, size_t> places;
  for (const NodeId id : ws.graph.order()) {
    const Node& node = ws.graph.node(id);
    if (!reconstruct::is_layer(node.op)) continue;
    json row = {{"layer", node.name}, {"kind", name_of(node.op)}};
    if (node.op != OpKind::kMultiHeadAttention) add_bits(row, ws.plan, "weight_bits", {id, 1});
    add_bits(row, ws.plan, "activation_bits", {id, 0});
    places[node.name] = rows.size();
    rows.push_back(std::move(row));
  }
  for (const Measurement& measured : ws.report.rows()) {
    const auto place = places.find(measured.subject);
    if (place == places.end()) continue;
    const bool after = measured.stage.starts_with("after:");
    if (after || measured.stage == kPlainRounding)
      rows[place->second][measured.metric + (after ? "" : "_before")] = measured.value;
  }
  return rows;
}

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
            {"path", path_text(job.model)},
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
            {"indices", run.indices},
            {"data",
             {{"path", path_text(job.data)},
              {"array", job.data_options.array},
              {"begin", job.data_options.begin},
              {"end", job.data_options.end}}},
            {"sha256", run.fingerprint["calibration"]}}},
          {"preprocess", to_json(run.preprocess)},
          {"machine", {{"cpu", cpu_name()}}},
          {"seconds", outcome.seconds},
          {"cpu_seconds", outcome.cpu_seconds},
          {"peak_memory_bytes", outcome.peak_memory_bytes},
          {"metrics", outcome.metrics},
          {"layers", layer_rows(run.ws)},
          {"weight_histograms", weight_code_histograms(plan)},
          {"softmax_code_histograms", softmax_histograms(run, plan)},
          {"channel_ranges", channel_ranges(run.ws, kRangeSamples)},
          {"measurements", measurements}};
}

}  // namespace repquant
