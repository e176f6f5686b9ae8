#include "cli/full_parts.h"

#include <fmt/format.h>
#include <torch/version.h>

#include "cli/data_options.h"
#include "repquant/load/load.h"
#include "repquant/pipeline/float_model.h"
#include "repquant/pipeline/passes.h"
#include "repquant/pipeline/quantize.h"
#include "repquant/quantize/fake_quantize.h"

namespace repquant::cli {
namespace {

namespace fs = std::filesystem;

struct Loaded {
  Graph graph;
  WeightMap weights;
};

std::vector<int64_t> item_shape(const Graph& graph) {
  std::vector<int64_t> item;
  if (graph.inputs.empty()) return item;
  const auto& shape = graph.value(graph.inputs[0]).shape;
  for (size_t i = 1; shape && i < shape->size(); ++i)
    item.push_back((*shape)[i].known() ? (*shape)[i].size : -1);
  return item;
}

void trace(const Graph& graph, const WeightMap& weights, const SiteHook& hook, Model::Inputs item,
           const LayerTap& tap) {
  const at::NoGradGuard no_grad;
  check_items(graph, item);
  const Interpreter interpreter(graph, weights);
  ValueMap values;
  for (size_t i = 0; i < item.size(); ++i) values[graph.inputs[i]] = to_aten(item[i]);
  const auto show = [&](const std::string& name, const at::Tensor& value) {
    if (value.scalar_type() != at::kFloat) return;
    const Tensor host = from_aten(value);
    tap(name, host.view());
  };
  for (const NodeId id : graph.order()) {
    interpreter.run_node(id, values, hook);
    const Node& node = graph.node(id);
    show(node.name, values.at(node.outputs.at(0)));
  }
  show("output", values.at(graph.outputs.at(0)));
}

void name_values(OpenedModel& model, const Graph& graph) {
  for (const ValueId id : graph.inputs) model.inputs.push_back(graph.value(id).name);
  for (const ValueId id : graph.outputs) model.outputs.push_back(graph.value(id).name);
}

OpenedModel open_float(const fs::path& path, const Context& context) {
  at::set_num_threads(1);
  auto loaded = std::make_shared<Loaded>();
  loaded->graph = load_model(path);
  loaded->weights = load_weights(loaded->graph);
  OpenedModel model;
  model.kind = "float";
  model.item = item_shape(loaded->graph);
  model.preprocess = preprocess_beside(path);
  name_values(model, loaded->graph);
  model.run = Model([loaded, run = float_model(loaded->graph, loaded->weights, context.pool)](
                        Model::Inputs batch) { return run(batch); });
  model.trace = [loaded](Model::Inputs item, const LayerTap& tap) {
    trace(loaded->graph, loaded->weights, {}, item, tap);
  };
  return model;
}

OpenedModel open_simulated(const fs::path& path, const SimulateRequest& request,
                           const Context& context) {
  RecipeRequest recipe = request.recipe;
  if (recipe.recipe != "-" && !fs::exists(recipe.recipe)) std::swap(recipe.preset, recipe.recipe);
  if (request.data.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "eval: --simulate: expected calibration data",
                "pass --calibration with a folder of images or an array");
  }
  QuantizeJob job;
  job.model = path;
  job.recipe = resolve_recipe(recipe);
  job.data = request.data;
  job.preprocess = request.scored->preprocess;
  std::shared_ptr<Calibrated> run = prepare(job, {context.sink, context.pool, context.stop});
  if (!request.scored->data.empty()) {  // before the passes, which take their time
    (void)open_scored(request.scored->data, request.scored->options, *run, request.force_overlap,
                      "eval", context.sink);
  }
  run_passes(run->ws, job.recipe);
  OpenedModel model;
  model.kind = "simulated";
  model.item = item_shape(run->float_graph);
  model.preprocess = run->preprocess;
  const SiteHook hook = quantize::plan_hook(run->ws.plan);
  name_values(model, run->float_graph);
  model.run = Model([run, score = float_model(run->ws.graph, run->ws.weights, context.pool, hook)](
                        Model::Inputs batch) { return score(batch); });
  model.trace = [run, hook](Model::Inputs item, const LayerTap& tap) {
    trace(run->ws.graph, run->ws.weights, hook, item, tap);
  };
  return model;
}

Outcome inspect_model(const fs::path& path) {
  const Graph graph = load_model(path);
  Outcome outcome;
  int64_t parameters = 0;
  for (size_t id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(static_cast<ValueId>(id));
    if (value.constant && value.constant->dtype() == DType::kF32)
      parameters += value.constant->size();
  }
  std::map<std::string, int> ops;
  nlohmann::json nodes = nlohmann::json::array();
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    ++ops[std::string(name_of(node.op))];
    const auto& shape = graph.value(node.outputs.at(0)).shape;
    nodes.push_back({{"name", node.name},
                     {"op", name_of(node.op)},
                     {"shape", shape ? to_string(*shape) : "unknown"}});
  }
  outcome.result = {{"kind", "float"},
                    {"opset", graph.opset},
                    {"parameters", parameters},
                    {"ops", ops},
                    {"nodes", nodes}};
  outcome.text = print(graph) + fmt::format("opset {}, {} nodes, {} parameters\n", graph.opset,
                                            graph.order().size(), parameters);
  return outcome;
}

std::string library_versions() { return fmt::format("libtorch {}", TORCH_VERSION); }

}  // namespace

const Parts& full_parts() {
  static const Parts parts{open_float, open_simulated, inspect_model, library_versions};
  return parts;
}

}  // namespace repquant::cli
