#pragma once
// What a verb is: it declares its options, and returns what to run once they are read. A verb
// prints nothing: its result is text for people and JSON for programs.
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "repquant/core/progress.h"
#include "repquant/core/thread_pool.h"
#include "repquant/data/choose_preprocess.h"
#include "repquant/evaluate/evaluate.h"
#include "repquant/report/report.h"
#include "repquant/runtime/program.h"

namespace repquant::cli {

struct Common {
  bool json = false, quiet = false, verbose = false, strict = false, no_color = false;
  int threads = 0;
  std::string isa = "auto", progress = "auto", log_level = "info";
  uint64_t memory = 0;
};

struct Outcome {
  nlohmann::json result = nlohmann::json::object();
  std::string text;
  int exit = 0;               // kQuality, kVerifyFailed: the answer is no,
  std::string failure, hint;  // and this is what it says
  std::vector<Measurement> measurements;
};

struct Parts;
struct Context {
  const Common& common;
  Sink& sink;
  ThreadPool& pool;
  const StopFlag* stop;
  const Parts* parts;  // null in the build without calibration
};

using Run = std::function<Outcome(const Context&)>;
struct Command {
  const char* name;
  const char* summary;
  Run (*declare)(CLI::App& app);  // null: this build does not have it
};

// A model that answers: an artifact, or (full build) a float or fake-quantized graph.
using LayerTap = std::function<void(const std::string& layer, ConstTensorView value)>;
struct OpenedModel {
  std::string kind;  // "artifact", "float", "simulated"
  Model run;
  std::function<void(Model::Inputs item, const LayerTap&)> trace;  // one item, [1, ...] each
  std::vector<int64_t> item;  // first input's shape without the batch, -1: unknown
  std::vector<std::string> inputs, outputs;  // names, as data sets look for them
  std::optional<Preprocess> preprocess;
  std::vector<std::string> class_names;
  std::shared_ptr<const Program> program;  // of artifacts
};

struct RecipeRequest {
  std::string scheme, method, preset, recipe;
  std::vector<std::string> set;
  int64_t samples = 0, seed = -1;  // 0, -1: not given
};

struct DataRequest;
struct SimulateRequest {
  RecipeRequest recipe;
  std::string data;               // calibration
  DataRequest* scored = nullptr;  // what will be scored: may not overlap it, but when forced
  bool force_overlap = false;
};

// What only the full build can do.
struct Parts {
  OpenedModel (*open_float)(const std::filesystem::path& path, const Context& context);
  OpenedModel (*open_simulated)(const std::filesystem::path& path, const SimulateRequest& request,
                                const Context& context);
  Outcome (*inspect_model)(const std::filesystem::path& path);
  std::string (*library_versions)();
};

// A tensor for the first output of one item.
Tensor make_result(const Plan& plan);

// By content. Throws kUnsupported for a float model in the build without calibration.
OpenedModel open_model(const std::filesystem::path& path, const Context& context);

int run_program(const char* name, const std::vector<Command>& commands, const Parts* parts,
                int argc, char** argv);

}  // namespace repquant::cli
