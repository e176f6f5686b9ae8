// repquant verify: the runtime against the simulator, step by step.
#include <numeric>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/data_options.h"
#include "cli/exit_codes.h"
#include "repquant/core/artifact.h"
#include "repquant/core/error.h"
#include "repquant/evaluate/verify.h"

namespace repquant::cli {
namespace {

struct Options {
  std::string model;
  DataRequest data;
  int64_t samples = 2;
  bool steps = false;
};

Outcome failure(const StepDifference& d) {
  Outcome outcome;
  outcome.exit = kVerifyFailed;
  outcome.result = {{"equal", false}, {"item", d.item},           {"step", d.step},
                    {"op", d.op},     {"element", d.element},     {"differing", d.differing},
                    {"size", d.size}, {"simulated", d.simulated}, {"executed", d.executed}};
  outcome.failure = fmt::format(
      "verify: step \"{}\": item {}, element {}: expected {}, got {}; {} of {} elements differ",
      d.step, d.item, d.element, d.simulated, d.executed, d.differing, d.size);
  outcome.hint = "simulator and runtime disagree: please report it with the artifact";
  return outcome;
}

Outcome verify(Options& options, const Context& context) {
  const OpenedModel model = open_model(options.model, context);
  if (model.program == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("verify: \"{}\": expected an artifact", options.model));
  }
  const auto data = open_data(options.data, model, context);
  std::vector<int64_t> indices(static_cast<size_t>(std::min(options.samples, data->size())));
  std::iota(indices.begin(), indices.end(), 0);
  const std::vector<Tensor> inputs = load_inputs(*data, indices);
  std::string listed;
  int64_t compared = 0;
  const Plan plan = read_artifact(options.model);
  const auto found = first_difference(
      plan, model.program, inputs, &context.pool, [&](int64_t item, const Step& step) {
        ++compared;
        if (options.steps)
          listed += fmt::format("item {}  {:<40} {:<12} equal\n", item, step.name, step.op);
        if (context.stop->raised()) throw Interrupted("verify: interrupted");
      });
  Outcome outcome;
  if (found) {
    outcome = failure(*found);
  } else {
    outcome.result = {{"equal", true}};
    outcome.text =
        fmt::format("equal: {} steps, {} items, every bit\n", plan.steps.size(), indices.size());
  }
  outcome.text = listed + outcome.text;
  outcome.result["items"] = indices.size();
  outcome.result["steps"] = plan.steps.size();
  outcome.result["comparisons"] = compared;
  return outcome;
}

}  // namespace

Run declare_verify(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("artifact", options->model, "Artifact")->required();
  declare_data(app, options->data);
  declare_input(app, options->data, "One image or array instead of --data");
  app.add_option("--samples", options->samples, "Items compared")->check(CLI::PositiveNumber);
  app.add_flag("--steps", options->steps, "List every comparison");
  declare_preprocess(app, options->data.preprocess);
  return [options](const Context& context) { return verify(*options, context); };
}

}  // namespace repquant::cli
