#include "cli/data_options.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "repquant/core/error.h"

namespace repquant::cli {
namespace {

int64_t bound(const std::string& text, const std::string& range, int64_t fallback) {
  if (text.empty()) return fallback;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--range \"{}\": expected begin:end", range));
  }
  return value;
}

}  // namespace

void set_range(DatasetOptions& options, const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--range \"{}\": expected begin:end", text));
  }
  options.begin = bound(text.substr(0, colon), text, 0);
  options.end = bound(text.substr(colon + 1), text, -1);
}

void declare_preprocess(CLI::App& app, PreprocessRequest& request) {
  const std::string group = "Preprocessing";
  app.add_option("--preprocess", request.preset, "Preset, or a preprocessor_config.json")
      ->group(group);
  const std::vector<std::pair<const char*, const char*>> options{
      {"resize", "auto, none or the shorter side"},
      {"crop", "Side of the centre crop"},
      {"mean", "One number, or one a channel: 0.5,0.5,0.5"},
      {"std", "As --mean"},
      {"interpolation", "bicubic, bilinear or nearest"}};
  for (const auto& [name, help] : options) {
    app.add_option_function<std::string>(
           fmt::format("--{}", name),
           [&request, key = std::string(name)](const std::string& text) {
             request.options.emplace_back(key, text);
           },
           help)
        ->group(group);
  }
}

void declare_data(CLI::App& app, DataRequest& request) {
  const std::string group = "Data";
  app.add_option("--data", request.data,
                 "Folder of images, IDX, .npy, .npz or .safetensors; PATH[a:b] for a part")
      ->group(group);
  app.add_option("--labels", request.options.labels, "Lines \"file label\", or one label a line")
      ->group(group);
  app.add_option_function<std::string>(
         "--range", [&request](const std::string& text) { set_range(request.options, text); },
         "Part of the sorted items, begin:end")
      ->group(group);
  app.add_option("--array", request.options.array, "Array of an .npz or .safetensors file")
      ->group(group);
  app.add_option("--class-names", request.options.class_names, "One name a line")->group(group);
  app.add_option("--label-offset", request.label_offset, "Class of label 0")
      ->check(CLI::NonNegativeNumber)
      ->group(group);
}

void declare_input(CLI::App& app, DataRequest& request, const std::string& help) {
  app.add_option("--input", request.data, help)->group("Data");
}

std::unique_ptr<Dataset> open_data(DataRequest& request, const OpenedModel& model,
                                   const Context& context) {
  if (request.data.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "data: expected --data with a folder or file");
  }
  request.options.preprocess = choose_preprocess(request.preprocess, model.preprocess, model.item);
  context.sink.info("preprocessing: " + request.preprocess.reason);
  request.options.inputs = model.inputs;
  request.options.targets = {"target"};
  for (const std::string& output : model.outputs) request.options.targets.push_back(output);
  return open_dataset(request.data, request.options);
}

void for_each_item(const Dataset& data, int64_t count, const Context& context, const char* verb,
                   const std::function<void(int64_t index, Model::Inputs item)>& fn) {
  for (int64_t i = 0; i < std::min(count, data.size()); ++i) {
    if (context.stop->raised()) throw Interrupted(std::string(verb) + ": interrupted");
    const std::vector<int64_t> index{i};
    const std::vector<Tensor> inputs = load_inputs(data, index);
    fn(i, inputs);
  }
}

}  // namespace repquant::cli
