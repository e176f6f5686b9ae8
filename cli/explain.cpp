// repquant explain: what a warning means, or why the layers of an artifact are what they are.
#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "cli/commands.h"
#include "repquant/core/error.h"
#include "repquant/core/fields.h"
#include "repquant/runtime/session.h"

namespace repquant::cli {
namespace {

using nlohmann::json;

struct Warning {
  const char *code, *means, *cost, *action;
};

// docs/cli.md, "Warnings", has the first sentence of each.
constexpr Warning kWarnings[] = {
    {"W001", "fewer calibration samples were found than asked for; all are used",
     "ranges rest on fewer images than the recipe counts on", "give more --data, or --samples"},
    {"W002", "images that calibrated are scored, too (--force-overlap)",
     "scores look better than they are", "score other images: --eval-data, --eval-range"},
    {"W003", "the model has no layer to quantize; it stays in float",
     "the artifact is as large and as slow as the model",
     "see which ops the importer knows: docs/onnx_coverage.md"},
    {"W004",
     "a normalization was not folded into its readers; they share one range for all channels",
     "channels that vary less than others are rounded more coarsely",
     "more bits for the readers: a [[layer]] rule of the recipe"},
    {"W005", "the residual stream was not rotated",
     "outlier channels stay, which low bits cannot hold", "more bits, or accept it"},
    {"W010",
     "bench: no images to calibrate with; the int8 models of onnxruntime are made from random "
     "numbers",
     "their accuracy says nothing; their speed holds", "give --data"},
    {"W011",
     "bench: the float model is fixed to a smaller batch; a contender's call is several of its "
     "calls",
     "the contender cannot use the batch", "export the model with a free batch size"},
};

Outcome explain_code(const std::string& code) {
  std::vector<std::string> known;
  for (const Warning& warning : kWarnings) {
    known.emplace_back(warning.code);
    if (code != warning.code) continue;
    Outcome outcome;
    outcome.result = {{"code", warning.code},
                      {"means", warning.means},
                      {"cost", warning.cost},
                      {"action", warning.action}};
    outcome.text = fmt::format("{}  {}\n      cost: {}\n      do:   {}\n", warning.code,
                               warning.means, warning.cost, warning.action);
    return outcome;
  }
  throw Error(ErrorCode::kInvalidArgument, "explain: " + unknown_name("code", code, known));
}

// Nanoseconds of each step for one item of zeros, the least of a few runs.
std::vector<int64_t> step_times(const std::shared_ptr<const Program>& program, ThreadPool& pool) {
  const Plan& plan = program->plan();
  const auto tensors = [&](const std::vector<int>& indices) {
    std::vector<Tensor> made;
    for (const int index : indices) {
      const Buffer& buffer = plan.buffers[static_cast<size_t>(index)];
      Shape shape{1};
      shape.insert(shape.end(), buffer.item_shape.begin(), buffer.item_shape.end());
      made.emplace_back(buffer.dtype, shape);
    }
    return made;
  };
  const std::vector<Tensor> inputs = tensors(plan.inputs);
  std::vector<Tensor> outputs = tensors(plan.outputs);
  std::vector<ConstTensorView> in;
  std::vector<TensorView> out;
  for (const Tensor& input : inputs) in.push_back(input.view());
  for (Tensor& output : outputs) out.push_back(output.view());
  Session session(program, {.max_batch = 1, .pool = &pool});
  std::vector<int64_t> least(plan.steps.size(), INT64_MAX);
  for (int run = 0; run < 5; ++run) {
    std::vector<StepTime> times;
    session.run_profiled(in, out, times);
    for (const StepTime& time : times) {
      int64_t& best = least[static_cast<size_t>(time.step)];
      best = std::min(best, time.nanoseconds);
    }
  }
  return least;
}

json layer_row(const Program& program, size_t index, int64_t nanoseconds) {
  const Plan& plan = program.plan();
  const Step& step = plan.steps[index];
  uint64_t bytes = 0;
  int bits = 0;
  for (const auto& [role, name] : step.tensors) {
    const PlanTensor& tensor = plan.tensors.at(name);
    bytes += tensor.data.bytes();
    if (role == "w") bits = tensor.bits;
  }
  json row = {{"layer", step.name},
              {"op", step.op},
              {"kernel", program.kernel_for(index)},
              {"bytes", bytes},
              {"microseconds", static_cast<double>(nanoseconds) / 1000}};
  if (bits > 0) row["weight_bits"] = bits;
  const Buffer& input = plan.buffers[static_cast<size_t>(step.in[0])];
  if (input.dtype == DType::kU8) row["activation_bits"] = input.bits;
  for (const char* key : {"codes", "pv", "kind"})
    if (step.strings.contains(key)) row[key] = step.strings.at(key);
  if (plan.quality.is_object() && plan.quality.contains("sqnr_db") &&
      plan.quality["sqnr_db"].is_object()) {
    const json found = plan.quality["sqnr_db"].value(step.name, json());
    if (found.is_number()) row["sqnr_db"] = found;
  }
  return row;
}

std::string row_text(const json& row) {
  const auto bits = [&](const char* key, char sign) {
    return row.contains(key) ? fmt::format("{}{}", sign, row[key].get<int>()) : std::string("-");
  };
  return fmt::format(
      "{:<32} {:<10} {:<3} {:<3} {:<24} {:>9} bytes {:>9.1f} us  {}\n",
      row["layer"].get<std::string>(), row["op"].get<std::string>(), bits("weight_bits", 'w'),
      bits("activation_bits", 'a'), row["kernel"].get<std::string>(), row["bytes"].get<uint64_t>(),
      row["microseconds"].get<double>(),
      row.contains("sqnr_db") ? fmt::format("{:.1f} dB", row["sqnr_db"].get<double>()) : "");
}

bool is_layer(const Step& step) {
  return step.tensors.contains("w") || step.tensors.contains("weight") || step.op == "attention";
}

Outcome explain_model(const std::string& path, const std::string& layer, const Context& context) {
  const OpenedModel model = open_model(path, context);
  if (model.program == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("explain: \"{}\": expected an artifact or a code as W004", path),
                "repquant quantize makes artifacts");
  }
  const std::vector<Step>& steps = model.program->plan().steps;
  const std::vector<int64_t> times = step_times(model.program, context.pool);
  Outcome outcome;
  outcome.result = {{"layers", json::array()}};
  std::vector<std::string> names;
  for (size_t i = 0; i < steps.size(); ++i) {
    names.push_back(steps[i].name);
    if (layer.empty() ? !is_layer(steps[i]) : steps[i].name != layer) continue;
    outcome.result["layers"].push_back(layer_row(*model.program, i, times[i]));
    outcome.text += row_text(outcome.result["layers"].back());
  }
  if (!layer.empty() && outcome.result["layers"].empty())
    throw Error(ErrorCode::kInvalidArgument, "explain: " + unknown_name("layer", layer, names));
  const std::string rule = fmt::format("[[layer]]\nmatch = \"{}\"\nweights = 8\nactivations = 8\n",
                                       layer.empty() ? "LAYER" : layer);
  outcome.result["recipe"] = rule;
  outcome.text += "\nA rule of the recipe changes the bits:\n\n" + rule;
  return outcome;
}

}  // namespace

Run declare_explain(CLI::App& app) {
  struct Options {
    std::string subject, layer;
  };
  auto options = std::make_shared<Options>();
  app.add_option("subject", options->subject, "Artifact, or the code of a warning")->required();
  app.add_option("layer", options->layer, "One step of the artifact");
  return [options](const Context& context) {
    const std::string& text = options->subject;
    const bool code = text.size() == 4 && text[0] == 'W' && !std::filesystem::exists(text);
    return code ? explain_code(text) : explain_model(text, options->layer, context);
  };
}

}  // namespace repquant::cli
