#include <fmt/format.h>

#include "cli/command.h"
#include "repquant/core/artifact.h"
#include "repquant/core/error.h"
#include "repquant/evaluate/artifact_model.h"
#include "repquant/runtime/session.h"

namespace repquant::cli {
namespace {

void trace_artifact(const std::shared_ptr<const Program>& program, ThreadPool& pool,
                    const Tensor& item, const LayerTap& tap) {
  Session session(program, {.max_batch = 1, .pool = &pool});
  const Plan& plan = program->plan();
  const Buffer& out = plan.buffers.at(static_cast<size_t>(plan.outputs.at(0)));
  Shape shape{1};
  shape.insert(shape.end(), out.item_shape.begin(), out.item_shape.end());
  Tensor result(DType::kF32, shape);
  const std::vector<ConstTensorView> in{item.view()};
  const std::vector<TensorView> results{result.view()};
  session.run_tapped(in, results,
                     [&](const Step& step, int, ConstTensorView value) { tap(step.name, value); });
  tap("output", ConstTensorView{result.data(), DType::kF32, result.shape()});
}

OpenedModel open_artifact(const std::filesystem::path& path, const Context& context) {
  OpenedModel model;
  model.kind = "artifact";
  model.program =
      Program::open(path, {.isa = context.common.isa, .memory_cap = context.common.memory});
  model.program->check_memory(1, context.pool.size());
  model.run = artifact_model(model.program, context.pool);
  const Plan& plan = model.program->plan();
  model.item = plan.buffers.at(static_cast<size_t>(plan.inputs.at(0))).item_shape;
  if (plan.model.is_object() && plan.model.contains("preprocess")) {
    model.preprocess = preprocess_from_json(plan.model["preprocess"]);
  }
  if (plan.model.is_object() && plan.model.contains("class_names") &&
      plan.model["class_names"].is_array()) {
    for (const auto& name : plan.model["class_names"]) {
      model.class_names.push_back(name.is_string() ? name.get<std::string>() : "");
    }
  }
  model.trace = [program = model.program, &pool = context.pool](const Tensor& item,
                                                                const LayerTap& tap) {
    trace_artifact(program, pool, item, tap);
  };
  return model;
}

}  // namespace

OpenedModel open_model(const std::filesystem::path& path, const Context& context) {
  if (!std::filesystem::exists(path)) {
    throw Error(ErrorCode::kNotFound, fmt::format("model: \"{}\": no such file", path.string()));
  }
  const std::string name = path.filename().string();
  const bool named = name.ends_with(".rq.safetensors") || name.ends_with(".safetensors");
  if (named || is_artifact(path)) return open_artifact(path, context);
  if (context.parts == nullptr) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("model: \"{}\": not an artifact, and this build reads nothing else",
                            path.string()),
                "use the program repquant, built with -DREPQUANT_TORCH=ON");
  }
  return context.parts->open_float(path, context);
}

}  // namespace repquant::cli
