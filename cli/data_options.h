#pragma once
// The options that name data and its preprocessing, shared by the verbs.
#include <functional>
#include <memory>
#include <string>

#include "cli/command.h"
#include "repquant/data/dataset.h"

namespace repquant::cli {

struct DataRequest {
  std::string data;
  DatasetOptions options;
  PreprocessRequest preprocess;
  int64_t label_offset = 0;
};

// --data --labels --range --array --class-names --label-offset
void declare_data(CLI::App& app, DataRequest& request);
// --input: another name of --data, for one image or array.
void declare_input(CLI::App& app, DataRequest& request, const std::string& help);
// --preprocess --resize --crop --mean --std --interpolation
void declare_preprocess(CLI::App& app, PreprocessRequest& request);
// "a:b", either may be empty; kInvalidArgument.
void set_range(DatasetOptions& options, const std::string& text);
// With the preprocessing of the request, the model or the guess, which is said.
std::unique_ptr<Dataset> open_data(DataRequest& request, const OpenedModel& model,
                                   const Context& context);
// fn(index, inputs [1, ...]) for the first `count` items; ends with Interrupted on Ctrl-C.
void for_each_item(const Dataset& data, int64_t count, const Context& context, const char* verb,
                   const std::function<void(int64_t index, Model::Inputs item)>& fn);

}  // namespace repquant::cli
