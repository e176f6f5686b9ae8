// repquant verify: the runtime against the simulator, step by step.
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/commands.h"
#include "cli/data_options.h"
#include "cli/exit_codes.h"
#include "cli/program.h"
#include "repquant/core/artifact.h"
#include "repquant/core/error.h"
#include "repquant/evaluate/bit_matrix.h"
#include "repquant/evaluate/verify.h"

namespace repquant::cli {
namespace {

struct Options {
  std::string model;
  DataRequest data;
  int64_t samples = 2;
  bool steps = false;
  std::string matrix;
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

std::vector<int64_t> first_indices(int64_t wanted, int64_t there) {
  std::vector<int64_t> indices(static_cast<size_t>(std::min(wanted, there)));
  std::iota(indices.begin(), indices.end(), 0);
  return indices;
}

nlohmann::json described(const BitMatrixOptions& asked, const BitMatrix& matrix) {
  return {{"isas", matrix.isas},      {"threads", asked.threads},
          {"batches", asked.batches}, {"combinations", matrix.combinations},
          {"items", matrix.items},    {"digest", matrix.digest}};
}

// Adds what the matrix found to an outcome that is good so far.
void add_matrix(const Options& options, const Plan& plan, const Dataset& data,
                const Context& context, Outcome& outcome) {
  BitMatrixOptions asked;
  if (options.matrix == "short") asked.threads = {1, 2}, asked.batches = {1};
  const std::vector<Tensor> inputs =
      load_inputs(data, first_indices(asked.batches.back(), data.size()));
  asked.between = [&] {
    if (context.stop->raised()) throw Interrupted("verify: interrupted");
  };
  const BitMatrix matrix = compare_bits(plan, inputs, asked);
  outcome.result["matrix"] = described(asked, matrix);
  outcome.text += fmt::format(
      "bits: {} combinations of instruction set ({}), {} threads and batch {}; {} items; "
      "logits sha256 {}\n",
      matrix.combinations, fmt::join(matrix.isas, ", "), fmt::join(asked.threads, ", "),
      fmt::join(asked.batches, ", "), matrix.items, matrix.digest);
  if (!matrix.difference) return;
  const BitDifference& d = *matrix.difference;
  outcome.exit = kVerifyFailed;
  outcome.result["equal"] = false;
  outcome.failure = fmt::format(
      "verify: {}, {} threads, batch {}: item {}, output element {} differs from the scalar rows",
      d.isa, d.threads, d.batch, d.item, d.element);
  outcome.hint = "two rows disagree: please report it with the artifact";
}

Outcome verify(Options& options, const Context& context) {
  const OpenedModel model = open_model(options.model, context);
  if (model.program == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("verify: \"{}\": expected an artifact", options.model));
  }
  const auto data = open_data(options.data, model, context);
  const std::vector<int64_t> indices = first_indices(options.samples, data->size());
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
  if (!found && !options.matrix.empty()) add_matrix(options, plan, *data, context, outcome);
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
  app.add_option("--matrix", options->matrix,
                 "full: all instruction sets, 1 to 3 threads, batches of 1, 3, 8; or short")
      ->check(one_of({"full", "short"}));
  declare_preprocess(app, options->data.preprocess);
  return [options](const Context& context) { return verify(*options, context); };
}

}  // namespace repquant::cli
