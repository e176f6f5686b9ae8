#include "repquant/pipeline/passes.h"

#include <chrono>

#include <fmt/format.h>

#include "repquant/lower/lower.h"
#include "repquant/methods/method.h"
#include "repquant/pipeline/targets.h"
#include "repquant/reconstruct/layer_error.h"

namespace repquant {
namespace {

constexpr int64_t kMeasuredSamples = 8;

std::vector<at::Tensor> load_samples(const Dataset& dataset, const std::vector<int64_t>& indices,
                                     int64_t begin, int64_t end) {
  std::vector<at::Tensor> inputs;
  const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
  for (const Tensor& input : load_inputs(dataset, std::span(indices).subspan(first, count)))
    inputs.push_back(to_aten(input));
  return inputs;
}

}  // namespace

Batches batches_of(const Dataset& dataset, const std::vector<int64_t>& indices) {
  Batches batches;
  batches.count = static_cast<int64_t>(indices.size());
  batches.load = [&dataset, indices](int64_t begin, int64_t end) {
    return load_samples(dataset, indices, begin, end).at(0);
  };
  if (indices.empty() || dataset.load(indices[0]).others.empty()) return batches;
  batches.load_others = [&dataset, indices](int64_t begin, int64_t end) {
    std::vector<at::Tensor> inputs = load_samples(dataset, indices, begin, end);
    inputs.erase(inputs.begin());
    return inputs;
  };
  return batches;
}

void run_passes(Workspace& ws, const Recipe& recipe) {
  make_parameters_explicit(ws);
  ws.reference = ws.weights;
  ws.targets = make_targets(ws, recipe);
  ws.seed = recipe.seed;
  reconstruct::measure_plain_rounding(ws, kPlainRounding, kMeasuredSamples);
  for (const Pass& pass : recipe.passes) {
    const Method& method = find_method(pass.method);
    const auto start = std::chrono::steady_clock::now();
    ws.pass = pass.method;
    reconstruct::measure_layers(ws, "before:" + pass.method, kMeasuredSamples);
    method.run(ws, pass.options);
    ws.graph.verify();
    reconstruct::measure_layers(ws, "after:" + pass.method, kMeasuredSamples);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    ws.report.add({"pass", pass.method, "seconds", taken.count()});
  }
}

Plan finish(Workspace& ws, const nlohmann::json& model, const nlohmann::json& provenance) {
  store_weights(ws);
  LowerOptions options;
  options.model = model;
  options.provenance = provenance;
  return lower(ws.graph, ws.plan, options);
}

}  // namespace repquant
