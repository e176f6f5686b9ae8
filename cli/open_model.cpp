#include <map>

#include <fmt/format.h>

#include "cli/command.h"
#include "repquant/core/artifact.h"
#include "repquant/core/error.h"
#include "repquant/evaluate/artifact_model.h"
#include "repquant/runtime/session.h"

namespace repquant::cli {
namespace {

// A linear step may add a residual: its own part is what the layer of the float model puts out.
class BranchOf {
 public:
  ConstTensorView operator()(const Step& step, ConstTensorView value) {
    if (value.dtype != DType::kF32) return value;
    const auto sum = value.as<float>();
    std::vector<float>& kept = values_[step.out.at(0)];
    kept.assign(sum.begin(), sum.end());
    const auto residual = step.in.size() == 2 ? values_.find(step.in[1]) : values_.end();
    if (step.op != "linear" || residual == values_.end()) return value;
    branch_.resize(sum.size());
    for (size_t i = 0; i < sum.size(); ++i) branch_[i] = sum[i] - residual->second[i];
    return {branch_.data(), DType::kF32, value.shape};
  }

 private:
  std::map<int, std::vector<float>> values_;  // by buffer
  std::vector<float> branch_;
};

void trace_artifact(const std::shared_ptr<const Program>& program, ThreadPool& pool,
                    Model::Inputs item, const LayerTap& tap) {
  Session session(program, {.max_batch = 1, .pool = &pool});
  Tensor result = make_result(program->plan());
  const std::vector<Tensor> values = plan_inputs(program->plan(), item);
  std::vector<ConstTensorView> in;
  for (const Tensor& input : values) in.push_back(input.view());
  const std::vector<TensorView> results{result.view()};
  BranchOf branch;
  session.run_tapped(in, results, [&](const Step& step, int, ConstTensorView value) {
    tap(step.name, branch(step, value));
  });
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
  for (const int input : plan.inputs)
    model.inputs.push_back(plan.buffers.at(static_cast<size_t>(input)).name);
  if (plan.model.is_object() && plan.model.contains("outputs")) {
    for (const auto& output : plan.model["outputs"])
      if (output.is_object()) model.outputs.push_back(output.value("name", ""));
  }
  if (plan.model.is_object() && plan.model.contains("preprocess")) {
    model.preprocess = preprocess_from_json(plan.model["preprocess"]);
  }
  if (plan.model.is_object() && plan.model.contains("class_names") &&
      plan.model["class_names"].is_array()) {
    for (const auto& name : plan.model["class_names"]) {
      model.class_names.push_back(name.is_string() ? name.get<std::string>() : "");
    }
  }
  model.trace = [program = model.program, &pool = context.pool](Model::Inputs item,
                                                                const LayerTap& tap) {
    trace_artifact(program, pool, item, tap);
  };
  return model;
}

}  // namespace

Tensor make_result(const Plan& plan) {
  Shape shape{1};
  const Shape& item = plan.buffers.at(static_cast<size_t>(plan.outputs.at(0))).item_shape;
  shape.insert(shape.end(), item.begin(), item.end());
  return Tensor(DType::kF32, shape);
}

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
