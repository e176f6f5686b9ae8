#include "repquant/pipeline/quantize.h"

#include <chrono>
#include <regex>

#include <fmt/format.h>

#include "repquant/core/artifact.h"
#include "repquant/core/files.h"
#include "repquant/core/machine.h"
#include "repquant/core/version.h"
#include "repquant/data/subset.h"
#include "repquant/evaluate/artifact_model.h"
#include "repquant/evaluate/score_json.h"
#include "repquant/evaluate/verify.h"
#include "repquant/pipeline/float_model.h"
#include "repquant/pipeline/memory_cap.h"
#include "repquant/pipeline/passes.h"
#include "repquant/pipeline/run_record.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path with_suffix(fs::path path, const char* suffix) { return path += suffix; }

void refuse_compat(const Recipe& recipe) {
  bool compat = false;
  for (const LayerRule& rule : recipe.layers) compat = compat || rule.levels == "compat";
  for (const Pass& pass : recipe.passes) {
    for (const auto& [key, value] : pass.options) {
      compat = compat ||
               (key == "compat" && std::holds_alternative<bool>(value) && std::get<bool>(value));
    }
  }
  if (!compat) return;
  throw Error(ErrorCode::kUnsupported,
              "quantize: recipe: published levels (compat) have no integer codes",
              "score them with `repquant eval MODEL --simulate RECIPE`");
}

// Those of an interrupted write of `out`; the work folder's lock is held. The folder is the user's:
// only names that AtomicFile gives, and that of the staged artifact.
void remove_stale_temporaries(const fs::path& out) {
  static const std::regex form(
      "\\.staged\\.tmp|\\.(staged\\.tmp|recipe\\.toml|run\\.json)\\.[0-9]+\\.[0-9]+\\.tmp");
  std::error_code ignored;
  const std::string ours = out.filename().string();
  const fs::path folder = out.has_parent_path() ? out.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(ours) && name.size() < ours.size() + 128 &&
        std::regex_match(name.substr(ours.size()), form))
      fs::remove(entry.path(), ignored);
  }
}

std::unique_ptr<Dataset> open_eval(const QuantizeJob& job, const Calibrated& run,
                                   const RunContext& context) {
  if (job.eval_data.empty()) return nullptr;
  DatasetOptions options = job.eval_options;
  // Sub-folders are numbered by the names, here as in the calibration data.
  if (options.class_names.empty()) options.class_names = job.data_options.class_names;
  return open_scored(job.eval_data, options, run, job.force_overlap, "quantize", context.sink);
}

Scores score(const Model& model, const Dataset& data, const QuantizeJob& job,
             const RunContext& context, const char* pass) {
  EvaluateOptions options;
  options.label_offset = job.label_offset;
  options.pool = &context.pool;
  options.sink = &context.sink;
  options.stop = context.stop;
  options.pass = pass;
  return evaluate(model, data, options);
}

json class_names(const QuantizeJob& job, const Calibrated& run, const Dataset* eval) {
  if (!job.data_options.class_names.empty()) return read_class_names(job.data_options.class_names);
  if (!run.data->class_names().empty()) return run.data->class_names();
  if (eval != nullptr && !eval->class_names().empty()) return eval->class_names();
  return json();
}

Plan make_plan(const QuantizeJob& job, Calibrated& run, const Dataset* eval) {
  json model = {{"name", job.model.stem().string()}, {"preprocess", to_json(run.preprocess)}};
  if (const json names = class_names(job, run, eval); !names.is_null())
    model["class_names"] = names;
  const json provenance = {{"tool", "repquant"},
                           {"version", kVersion},
                           {"recipe", run.fingerprint["recipe"]},
                           {"rewrites", run.ws.applied},
                           {"source", {{"weights_sha256", run.fingerprint["model"]}}},
                           {"calibration",
                            {{"count", run.indices.size()},
                             {"seed", job.recipe.seed},
                             {"sha256", run.fingerprint["calibration"]}}}};
  Plan plan = finish(run.ws, model, provenance);
  plan.quality = {{"sqnr_db", layer_sqnr(run.ws.report)}};
  return plan;
}

void verify(const Plan& plan, const std::shared_ptr<const Program>& program, const Calibrated& run,
            const RunContext& context) {
  const std::vector<Tensor> sample = load_inputs(*run.data, std::span(run.indices).first(1));
  const auto found = first_difference(plan, program, sample, &context.pool);
  if (!found) return;
  throw Error(ErrorCode::kVerifyFailed,
              fmt::format("verify: step \"{}\": element {}: simulated {}, executed {}", found->step,
                          found->element, found->simulated, found->executed),
              "this is a bug: please report it with the recipe");
}

void check_output(const QuantizeJob& job, const WorkFolder& work) {
  if (fs::exists(job.out) && !fs::is_regular_file(job.out)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("write: \"{}\": expected a file name, got a {}", job.out.string(),
                            fs::is_directory(job.out) ? "folder" : "device"));
  }
  std::error_code absent;
  if (fs::equivalent(job.out, job.model, absent)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("write: \"{}\": expected another file than the model", job.out.string()));
  }
  if (!fs::exists(job.out) || job.force) return;
  if (job.resume != Resume::kNever && work.owns(job.out)) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("write: \"{}\": exists already", job.out.string()),
              "pass --force to replace it");
}

// All three files or none: each is complete on disk before the first gets its name. The artifact is
// the first, and the claim lets the same command go on from there.
void write_files(const QuantizeJob& job, const Calibrated& run, const Plan& plan, WorkFolder& work,
                 std::chrono::steady_clock::time_point start, QuantizeOutcome& outcome) {
  const fs::path staged = with_suffix(job.out, ".staged.tmp");
  outcome.artifact = job.out;
  outcome.digest = write_artifact(staged, plan);
  outcome.bytes = fs::file_size(staged);
  outcome.model_bytes = fs::file_size(job.model);
  outcome.report = run.ws.report;
  outcome.recipe = with_suffix(job.out, ".recipe.toml");
  outcome.run_record = with_suffix(job.out, ".run.json");
  AtomicFile recipe(outcome.recipe), record(outcome.run_record);
  recipe.write(to_toml(job.recipe));
  recipe.sync();
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  outcome.cpu_seconds = process_cpu_seconds();
  outcome.peak_memory_bytes = peak_memory_bytes();
  record.write(run_record(job, run, plan, outcome).dump(1) + "\n");
  record.sync();
  work.claim(job.out, sha256_hex(read_file(staged)));
  rename_file(staged, job.out);
  record.commit();
  recipe.commit();
}

}  // namespace

std::unique_ptr<Dataset> open_scored(const std::string& path, DatasetOptions options,
                                     const Calibrated& run, bool force, const char* verb,
                                     Sink& sink) {
  options.preprocess = run.preprocess;
  name_arrays(run.float_graph, options);
  auto data = open_dataset(path, options);
  const std::vector<int64_t> both = overlap(*run.data, run.indices, *data);
  if (both.empty()) return data;
  const std::string message =
      fmt::format("{} of {} calibration images are also scored, first \"{}\"", both.size(),
                  run.indices.size(), run.data->name(both[0]));
  if (!force) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: data: {}", verb, message),
                "choose other folders or ranges, or pass --force-overlap");
  }
  sink.warning("W002", "data", message, "scores will look better than they are");
  return data;
}

QuantizeOutcome quantize_model(const QuantizeJob& job, const RunContext& context) {
  const auto start = std::chrono::steady_clock::now();
  refuse_compat(job.recipe);
  const auto run = prepare(job, context);
  const MemoryLimit limit(job.memory_cap);
  const auto eval = open_eval(job, *run, context);
  WorkFolder work(job.work_dir.empty() ? with_suffix(job.out, ".work") : job.work_dir);
  const bool fresh = !work.existed();
  try {
    check_output(job, work);
    remove_stale_temporaries(job.out);
    FolderCheckpoint checkpoint(work.path(), run->fingerprint, job.resume);
    run->ws.checkpoint = &checkpoint;
    std::optional<Scores> before, after;
    if (eval) {
      before = score(float_model(run->float_graph, run->float_weights, context.pool), *eval, job,
                     context, "score float");
    }
    run_passes(run->ws, job.recipe);
    if (checkpoint.restored() > 0) {
      context.sink.info(
          fmt::format("resumed: {} finished units were restored", checkpoint.restored()));
    }
    Plan plan = make_plan(job, *run, eval.get());
    QuantizeOutcome outcome;
    const auto program = Program::from_plan(plan);
    verify(plan, program, *run, context);
    if (eval) {
      after = score(artifact_model(program, context.pool), *eval, job, context, "score artifact");
      outcome.metrics = {{"before", score_json(*before)},
                         {"after", score_json(*after)},
                         {"difference", difference_json(*before, *after)}};
      plan.quality["metrics"] = outcome.metrics;
    }
    run->ws.throw_if_stopped();
    write_files(job, *run, plan, work, start, outcome);
    if (job.keep) work.release();
    else work.remove();
    return outcome;
  } catch (const Interrupted&) {
    throw;
  } catch (...) {
    remove_stale_temporaries(job.out);
    if (fresh && !job.keep) work.remove();  // a failed command leaves nothing behind
    throw;
  }
}

}  // namespace repquant
