#include "repquant/pipeline/float_model.h"

#include <fmt/format.h>

#include "repquant/data/npy.h"
#include "repquant/interpret/workspace.h"

namespace repquant {

namespace {

void check_item(const Value& input, const Tensor& batch) {
  const bool whole = input.dtype == DType::kI32 || input.dtype == DType::kI64;
  const bool given = batch.dtype() == DType::kI32 || batch.dtype() == DType::kI64;
  if (whole != given) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("evaluate: input \"{}\": expected {}, got {}", input.name,
                            numpy_name(input.dtype), numpy_name(batch.dtype())),
                whole ? "save the tokens as int64" : "save x.astype(numpy.float32)");
  }
  if (!input.shape) return;
  bool fits = static_cast<int64_t>(input.shape->size()) == batch.rank();
  for (size_t i = 1; fits && i < input.shape->size(); ++i) {
    const Dim& dim = (*input.shape)[i];
    fits = !dim.known() || dim.size == batch.shape()[i];
  }
  if (fits) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("evaluate: input \"{}\": expected {}, got {}", input.name,
                          to_string(*input.shape), to_string(batch.shape())),
              "check --crop and --resize against the model's input");
}

}  // namespace

void check_items(const Graph& graph, Model::Inputs inputs) {
  if (graph.inputs.size() != inputs.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("evaluate: model: expected {} inputs, got {}", graph.inputs.size(),
                            inputs.size()),
                "give .npz or .safetensors with an array for each input, by its name");
  }
  for (size_t i = 0; i < inputs.size(); ++i) check_item(graph.value(graph.inputs[i]), inputs[i]);
}

void name_arrays(const Graph& graph, DatasetOptions& options) {
  options.inputs.clear();
  for (const ValueId id : graph.inputs) options.inputs.push_back(graph.value(id).name);
  for (const ValueId id : graph.outputs) options.targets.push_back(graph.value(id).name);
}

Model float_model(const Graph& graph, const WeightMap& weights, ThreadPool& pool, SiteHook hook) {
  return Model([&graph, &weights, &pool, hook = std::move(hook)](Model::Inputs batch) {
    check_items(graph, batch);
    std::vector<at::Tensor> inputs;
    for (const Tensor& input : batch) inputs.push_back(to_aten(input));
    const Interpreter interpreter(graph, weights);
    std::vector<at::Tensor> outputs(static_cast<size_t>(inputs[0].size(0)));
    for_each_index(pool, inputs[0].size(0), [&](int64_t i) {
      std::vector<at::Tensor> item;
      for (const at::Tensor& input : inputs) item.push_back(input.narrow(0, i, 1));
      outputs[static_cast<size_t>(i)] = interpreter.run(item, hook).at(0).to(at::kFloat);
    });
    return from_aten(at::cat(outputs));
  });
}

}  // namespace repquant
