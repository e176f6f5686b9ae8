#pragma once
// The options that name data and its preprocessing, shared by the verbs.
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
// --preprocess --resize --crop --mean --std --interpolation
void declare_preprocess(CLI::App& app, PreprocessRequest& request);
// "a:b", either may be empty; kInvalidArgument.
void set_range(DatasetOptions& options, const std::string& text);
// With the preprocessing of the request, the model or the guess, which is said.
std::unique_ptr<Dataset> open_data(DataRequest& request, const OpenedModel& model,
                                   const Context& context);

}  // namespace repquant::cli
