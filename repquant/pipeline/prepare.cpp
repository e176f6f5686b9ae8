// What precedes the passes: model, data, what identifies the run.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "repquant/core/files.h"
#include "repquant/core/machine.h"
#include "repquant/core/version.h"
#include "repquant/data/subset.h"
#include "repquant/graph/input_shapes.h"
#include "repquant/load/load.h"
#include "repquant/lower/whole_items.h"
#include "repquant/methods/method.h"
#include "repquant/pipeline/float_model.h"
#include "repquant/pipeline/memory_cap.h"
#include "repquant/pipeline/passes.h"
#include "repquant/pipeline/quantize.h"
#include "repquant/pipeline/targets.h"

namespace repquant {
namespace {

using nlohmann::json;

// Files of external data are covered: the digest is over what was loaded.
std::string weights_digest(const Graph& graph) {
  Sha256 sum;
  for (size_t id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(static_cast<ValueId>(id));
    if (!value.constant) continue;
    sum.update(fmt::format("{} {} {} ", id, name_of(value.constant->dtype()),
                           to_string(value.constant->shape())));
    sum.update({static_cast<const std::byte*>(value.constant->data()), value.constant->bytes()});
  }
  return sum.hex();
}

// Attributes and wiring: models of equal weights may differ in both.
std::string structure_digest(const Graph& graph) { return Sha256().update(print(graph)).hex(); }

void check_finite(const Graph& graph) {
  for (size_t id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(static_cast<ValueId>(id));
    if (!value.constant || value.constant->dtype() != DType::kF32) continue;
    for (const float x : value.constant->as<float>()) {
      // Infinity is what masks are made of.
      if (!std::isnan(x)) continue;
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("load: weight \"{}\": holds NaN", value.name),
                  "the model file is damaged, or its training diverged");
    }
  }
}

void check_one(const Graph& graph, const std::vector<ValueId>& values, const char* what) {
  if (values.size() == 1) return;
  std::string names;
  for (const ValueId id : values)
    names += fmt::format("{}\"{}\"", names.empty() ? ": " : ", ", graph.value(id).name);
  throw Error(ErrorCode::kUnsupported,
              fmt::format("quantize: model: expected one {}, got {}{}", what, values.size(), names),
              fmt::format("export the model with one {}", what));
}

std::vector<int64_t> item_shape(const Graph& graph) {
  std::vector<int64_t> item;
  const auto& shape = graph.value(graph.inputs[0]).shape;
  for (size_t i = 1; shape && i < shape->size(); ++i)
    item.push_back((*shape)[i].known() ? (*shape)[i].size : -1);
  return item;
}

void check_data_given(const QuantizeJob& job) {
  if (!job.data.empty()) return;
  for (const Pass& pass : job.recipe.passes) {
    if (!find_method(pass.method).needs.data) continue;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("quantize: method \"{}\" needs calibration data", pass.method),
                "pass --data with a folder of images or an array");
  }
}

void draw(Calibrated& run, const QuantizeJob& job, const RunContext& context) {
  const int64_t asked = job.recipe.samples, there = run.data->size();
  if (asked > there) {
    context.sink.warning("W001", "data",
                         fmt::format("{} samples asked for, {} found: all are used", asked, there),
                         "more calibration images make better ranges");
  }
  run.indices = draw_subset(there, std::min(asked, there), job.recipe.seed);
  run.ws.calibration = batches_of(*run.data, run.indices);
}

// Sizes that the model leaves free are those of the calibration data.
void fix_sizes(Calibrated& run, const RunContext& context) {
  Graph& graph = run.float_graph;
  const std::vector<int64_t> sizes = item_shape(graph);
  if (std::find(sizes.begin(), sizes.end(), -1) == sizes.end() || run.data->size() == 0) return;
  const Shape item = run.data->load(0).input.shape();
  if (fix_item_shape(graph, graph.inputs[0], item)) {
    context.sink.info(fmt::format("input \"{}\": items of {}, as in the data",
                                  graph.value(graph.inputs[0]).name, to_string(item)));
  }
}

int64_t trained_samples(const Recipe& recipe) {
  int64_t most = 0;
  for (const Pass& pass : recipe.passes) {
    const Method& method = find_method(pass.method);
    if (method.trained_samples != nullptr)
      most = std::max(most, method.trained_samples(pass.options));
  }
  return most;
}

void limit_memory(Calibrated& run, const QuantizeJob& job, const RunContext& context) {
  run.memory_needed = needed_memory(run.float_graph, static_cast<int64_t>(run.indices.size()),
                                    context.pool.size(), trained_samples(job.recipe));
  check_memory(run.memory_needed, job.memory_cap);
  if (job.memory_cap == 0) return;
  const double left = static_cast<double>(job.memory_cap) - run.memory_needed;
  run.ws.resident_bytes = std::min(run.ws.resident_bytes, static_cast<int64_t>(left));
}

// A model that answers NaN cannot be calibrated: names the node where it begins.
void check_answers(const Calibrated& run, const RunContext& context) {
  const std::vector<Tensor> inputs = load_inputs(*run.data, std::span(run.indices).first(1));
  const Tensor answer =
      float_model(run.float_graph, run.float_weights, context.pool)(Model::Inputs(inputs));
  if (std::none_of(answer.as<float>().begin(), answer.as<float>().end(),
                   [](float x) { return std::isnan(x); }))
    return;
  const at::NoGradGuard no_grad;
  const Interpreter interpreter(run.float_graph, run.float_weights);
  ValueMap values;
  for (size_t i = 0; i < inputs.size(); ++i)
    values[run.float_graph.inputs[i]] = to_aten(inputs[i]);
  for (const NodeId id : run.float_graph.order()) {
    interpreter.run_node(id, values);
    const Node& node = run.float_graph.node(id);
    for (const ValueId output : node.outputs) {
      if (output == kNoValue || !at::isnan(values.at(output)).any().item<bool>()) continue;
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("load: node \"{}\" ({}): answers NaN for calibration item \"{}\"",
                              node.name, name_of(node.op), run.data->name(run.indices[0])),
                  "a weight before it is infinite or far too large");
    }
  }
}

}  // namespace

FieldList registry_options(std::string_view method) { return find_method(method).options(); }

std::unique_ptr<Calibrated> prepare(const QuantizeJob& job, const RunContext& context) {
  at::set_num_threads(1);
  auto run = std::make_unique<Calibrated>();
  check_data_given(job);
  run->float_graph = load_model(job.model);
  if (lowering::needs_batch_axis(run->float_graph))
    run->float_graph = lowering::with_batch_axis(run->float_graph);
  check_one(run->float_graph, run->float_graph.outputs, "output");
  check_finite(run->float_graph);
  PreprocessRequest request = job.preprocess;
  run->preprocess =
      choose_preprocess(request, preprocess_beside(job.model), item_shape(run->float_graph));
  context.sink.info("preprocessing: " + request.reason);
  DatasetOptions options = job.data_options;
  options.preprocess = run->preprocess;
  name_arrays(run->float_graph, options);
  run->data = open_dataset(job.data, options);
  fix_sizes(*run, context);
  run->float_weights = load_weights(run->float_graph);
  run->ws = make_workspace(run->float_graph);
  run->ws.pool = &context.pool;
  run->ws.sink = &context.sink;
  run->ws.stop = context.stop;
  run->ws.seed = job.recipe.seed;
  draw(*run, job, context);
  limit_memory(*run, job, context);
  check_answers(*run, context);
  run->fingerprint = {{"model", weights_digest(run->float_graph)},
                      {"graph", structure_digest(run->float_graph)},
                      {"recipe", to_json(job.recipe)},
                      {"calibration", subset_digest(*run->data, run->indices)},
                      {"preprocess", to_json(run->preprocess)},
                      {"version", kVersion},
                      {"cpu", cpu_name()}};
  return run;
}

nlohmann::json describe(const QuantizeJob& job, const RunContext& context) {
  const auto run = prepare(job, context);
  Workspace& ws = run->ws;
  make_parameters_explicit(ws);
  const auto targets = make_targets(ws, job.recipe);
  json layers = json::array(), floating = json::array();
  double bits = 0, parameters = 0;
  for (const NodeId id : ws.graph.order()) {
    const Node& node = ws.graph.node(id);
    if (node.op != OpKind::kLinear && node.op != OpKind::kConv &&
        node.op != OpKind::kMultiHeadAttention)
      continue;
    const auto weight = targets.find({id, 1});
    const auto input = targets.find({id, 0});
    const auto count =
        ws.has_constant(id, 1) ? static_cast<double>(ws.constant(id, 1).numel()) : 0.0;
    parameters += count;
    if (input == targets.end()) {
      floating.push_back(node.name);
      bits += 32 * count;
      continue;
    }
    json row = {
        {"layer", node.name}, {"op", name_of(node.op)}, {"activation_bits", input->second.bits}};
    if (node.op != OpKind::kMultiHeadAttention) {
      row["weight_bits"] = weight->second.bits;
      row["parameters"] = static_cast<int64_t>(count);
      bits += (weight->second.bits > 4 ? 8 : weight->second.bits) * count;
    }
    layers.push_back(std::move(row));
  }
  return {{"model",
           {{"file", job.model.string()},
            {"nodes", ws.graph.order().size()},
            {"linear_parameters", static_cast<int64_t>(parameters)}}},
          {"scheme", to_string(job.recipe.scheme)},
          {"layers", layers},
          {"float_layers", floating},
          {"samples", run->indices.size()},
          {"estimated_bytes", static_cast<int64_t>(bits / 8)},
          {"memory_bytes", static_cast<int64_t>(run->memory_needed)},
          {"preprocess", to_json(run->preprocess)},
          {"recipe", to_json(job.recipe)},
          {"artifact", job.out.string()}};
}

}  // namespace repquant
