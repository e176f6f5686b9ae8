#include "repquant/pipeline/float_model.h"

#include <fmt/format.h>

#include "repquant/data/npy.h"
#include "repquant/interpret/workspace.h"

namespace repquant {

void check_item(const Graph& graph, const Tensor& batch) {
  if (graph.inputs.size() != 1) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("evaluate: model: expected one input, got {}", graph.inputs.size()));
  }
  const Value& input = graph.value(graph.inputs[0]);
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

Model float_model(const Graph& graph, const WeightMap& weights, ThreadPool& pool, SiteHook hook) {
  return [&graph, &weights, &pool, hook = std::move(hook)](const Tensor& batch) {
    check_item(graph, batch);
    const at::Tensor inputs = to_aten(batch);
    const Interpreter interpreter(graph, weights);
    std::vector<at::Tensor> outputs(static_cast<size_t>(inputs.size(0)));
    for_each_index(pool, inputs.size(0), [&](int64_t i) {
      const std::vector<at::Tensor> item{inputs.narrow(0, i, 1)};
      outputs[static_cast<size_t>(i)] = interpreter.run(item, hook).at(0).to(at::kFloat);
    });
    return from_aten(at::cat(outputs));
  };
}

}  // namespace repquant
