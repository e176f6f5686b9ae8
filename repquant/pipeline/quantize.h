#pragma once
// The whole of the `quantize` command as a function: load, calibrate, lower, verify, score, write.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "repquant/core/plan.h"
#include "repquant/data/choose_preprocess.h"
#include "repquant/data/dataset.h"
#include "repquant/pipeline/checkpoint.h"
#include "repquant/pipeline/recipe.h"

namespace repquant {

struct QuantizeJob {
  std::filesystem::path model, out;
  Recipe recipe;                // effective
  std::string data;             // calibration; may end in [begin:end]
  DatasetOptions data_options;  // its preprocess is set from `preprocess`
  PreprocessRequest preprocess;
  std::string eval_data;  // empty: no scores
  DatasetOptions eval_options;
  int64_t label_offset = 0;
  bool force_overlap = false;      // calibration images may be among the scored ones
  bool force = false;              // overwrite `out`
  std::filesystem::path work_dir;  // empty: `out` + ".work"
  Resume resume = Resume::kAuto;
  bool keep = false;        // keep the work folder
  uint64_t memory_cap = 0;  // bytes resident, of the process; 0: none
};

// Where a run reports, computes and is stopped. `stop` may be null.
struct RunContext {
  Sink& sink;
  ThreadPool& pool;
  const StopFlag* stop = nullptr;
};

struct QuantizeOutcome {
  std::filesystem::path artifact, run_record, recipe;
  std::string digest;
  uint64_t bytes = 0, model_bytes = 0, peak_memory_bytes = 0;
  double seconds = 0, cpu_seconds = 0;  // wall time; of all threads
  nlohmann::json metrics;               // {"before", "after", "difference"} when scored
  Report report;
};

// A model after its passes. Members refer to one another: not movable.
struct Calibrated {
  Workspace ws;
  Graph float_graph;  // as loaded, with its weights: the reference of scores
  WeightMap float_weights;
  std::unique_ptr<Dataset> data;
  std::vector<int64_t> indices;
  Preprocess preprocess;
  nlohmann::json fingerprint;
  double memory_needed = 0;  // bytes (memory_cap.h)
};

// The options of the registry's methods, for the functions of recipe.h.
FieldList registry_options(std::string_view method);

// Opens model and data and draws the calibration subset; no pass has run.
std::unique_ptr<Calibrated> prepare(const QuantizeJob& job, const RunContext& context);

// Data to score `run` with, preprocessed alike. Throws kInvalidArgument, said by `verb`, when
// images that calibrated are among it; with `force` a warning.
std::unique_ptr<Dataset> open_scored(const std::string& path, DatasetOptions options,
                                     const Calibrated& run, bool force, const char* verb,
                                     Sink& sink);

// What would be done: {"model", "scheme", "layers", "float_layers", "passes", "samples",
// "estimated_bytes", "memory_bytes", "preprocess", "recipe", "artifact"}.
nlohmann::json describe(const QuantizeJob& job, const RunContext& context);

// Errors: those of the stages; kInvalidArgument when `out` exists, when levels are for simulation
// only, when images would calibrate and score, when the saved state is of another run;
// kVerifyFailed when simulator and runtime differ; Interrupted (state saved). Nothing is written to
// `out` then.
QuantizeOutcome quantize_model(const QuantizeJob& job, const RunContext& context);

}  // namespace repquant
