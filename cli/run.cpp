// repquant run: answers for one image or array.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/data_options.h"
#include "repquant/core/error.h"
#include "repquant/data/npy.h"
#include "repquant/evaluate/artifact_model.h"
#include "repquant/runtime/session.h"

namespace repquant::cli {
namespace {

struct Options {
  std::string model, output;
  DataRequest data;
  int64_t top = 5;
  bool profile = false;
};

std::string class_name(const OpenedModel& model, int64_t index) {
  const auto i = static_cast<size_t>(index);
  return i < model.class_names.size() ? model.class_names[i] : fmt::format("class {}", index);
}

nlohmann::json profile(const OpenedModel& model, Model::Inputs inputs, const Context& context,
                       std::string& text) {
  if (model.program == nullptr) {
    throw Error(ErrorCode::kInvalidArgument, "run: --profile: expected an artifact");
  }
  Session session(model.program, {.max_batch = 1, .pool = &context.pool});
  const Plan& plan = model.program->plan();
  Tensor result = make_result(plan);
  const std::vector<Tensor> values = plan_inputs(plan, inputs);
  std::vector<ConstTensorView> in;
  for (const Tensor& input : values) in.push_back(input.view());
  const std::vector<TensorView> out{result.view()};
  std::vector<StepTime> times;
  session.run(in, out);  // warm
  session.run_profiled(in, out, times);
  nlohmann::json rows = nlohmann::json::array();
  for (const StepTime& time : times) {
    const Step& step = plan.steps.at(static_cast<size_t>(time.step));
    const std::string kernel(model.program->kernel_for(static_cast<size_t>(time.step)));
    rows.push_back({{"step", step.name},
                    {"op", step.op},
                    {"kernel", kernel},
                    {"microseconds", static_cast<double>(time.nanoseconds) / 1e3}});
    text += fmt::format("  {:<40} {:<20} {:>9.1f} us\n", step.name, kernel,
                        static_cast<double>(time.nanoseconds) / 1e3);
  }
  return rows;
}

// The first `offset` answers are a background class, which is not ranked.
nlohmann::json rank(const OpenedModel& model, const Tensor& logits, int64_t top, int64_t offset,
                    std::string& text) {
  const auto all = logits.as<float>();
  if (offset >= static_cast<int64_t>(all.size())) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("run: --label-offset: expected less than {} classes, got {}",
                            all.size(), offset));
  }
  const auto values = all.subspan(static_cast<size_t>(offset));
  const std::vector<double> shares = softmax(values);
  nlohmann::json rows = nlohmann::json::array();
  for (const int64_t index : top_k(values, top)) {
    const double share = shares[static_cast<size_t>(index)];
    rows.push_back({{"class", index},
                    {"name", class_name(model, index)},
                    {"probability", share},
                    {"logit", values[static_cast<size_t>(index)]}});
    text += fmt::format("  {:>6.2f} %  {}\n", 100 * share, class_name(model, index));
  }
  return rows;
}

Outcome run(Options& options, const Context& context) {
  OpenedModel model = open_model(options.model, context);
  const auto data = open_data(options.data, model, context);
  if (model.class_names.empty()) model.class_names = data->class_names();
  if (!options.data.options.class_names.empty())
    model.class_names = read_class_names(options.data.options.class_names);
  Outcome outcome;
  outcome.result = {
      {"model", options.model}, {"kind", model.kind}, {"items", nlohmann::json::array()}};
  for_each_item(*data, data->size(), context, "run", [&](int64_t i, Model::Inputs inputs) {
    const Tensor logits = model.run(inputs);
    outcome.text += data->name(i) + "\n";
    nlohmann::json row = {{"name", data->name(i)}, {"shape", logits.shape()}};
    row["top"] = rank(model, logits, options.top, options.data.label_offset, outcome.text);
    if (options.profile && i == 0)
      outcome.result["profile"] = profile(model, inputs, context, outcome.text);
    outcome.result["items"].push_back(std::move(row));
    if (options.output.empty() || i > 0) return;
    write_npy(options.output, logits.view());
    outcome.result["output"] = options.output;
  });
  return outcome;
}

}  // namespace

Run declare_run(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model, "Artifact, or float model")->required();
  declare_data(app, options->data);
  declare_input(app, options->data, "Image, .npy, or anything --data takes");
  app.add_option("--top", options->top, "Classes listed")->check(CLI::Range(1, 100000));
  app.add_option("--output", options->output, "Write the answer of the first item as .npy");
  app.add_flag("--profile", options->profile, "Time of every step (artifacts)");
  declare_preprocess(app, options->data.preprocess);
  return [options](const Context& context) { return run(*options, context); };
}

}  // namespace repquant::cli
