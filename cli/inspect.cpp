// repquant inspect: what is in a file.
#include <regex>

#include <fmt/format.h>

#include "cli/commands.h"
#include "repquant/core/artifact.h"
#include "repquant/core/error.h"
#include "repquant/lower/summary.h"
#include "repquant/runtime/program.h"

namespace repquant::cli {
namespace {

struct Options {
  std::string file, tensors;
  bool plan = false, verify = false;
};

std::regex pattern(const std::string& text) {
  try {
    return std::regex(text.empty() ? ".*" : text);
  } catch (const std::regex_error&) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--tensors \"{}\": not a regular expression", text));
  }
}

void list_tensor(Outcome& outcome, const std::string& name, const Tensor& tensor,
                 const std::string& layout) {
  outcome.result["tensors"].push_back({{"name", name},
                                       {"dtype", name_of(tensor.dtype())},
                                       {"shape", tensor.shape()},
                                       {"bytes", tensor.bytes()},
                                       {"layout", layout}});
  outcome.text +=
      fmt::format("{:<48} {:<5} {:<20} {:>10} bytes  {}\n", name, name_of(tensor.dtype()),
                  to_string(tensor.shape()), tensor.bytes(), layout);
}

// What a session takes, and where its activations are largest.
nlohmann::json memory_of(const Program& program) {
  const auto& buffers = program.memory().buffers;
  uint64_t most = 0;
  size_t peak = 0;
  for (size_t s = 0; s < program.plan().steps.size(); ++s) {
    uint64_t alive = 0;
    for (const auto& place : buffers) {
      const auto now = static_cast<int>(s);
      if (!place.external && place.first <= now && now <= place.last) alive += place.bytes;
    }
    if (alive > most) most = alive, peak = s;
  }
  return {{"weights_bytes", program.weight_bytes()},
          {"activations_bytes", program.arena_bytes(1)},
          {"scratch_bytes", program.scratch_bytes(1)},
          {"peak_step", most == 0 ? "" : program.plan().steps[peak].name}};
}

std::string memory_text(const nlohmann::json& memory) {
  const auto kib = [&](const char* key) {
    return fmt::format("{:.1f} KiB", memory[key].get<double>() / 1024.0);
  };
  return fmt::format(
      "memory: weights {}, activations {} an item (most at {}), scratch {} a thread\n",
      kib("weights_bytes"), kib("activations_bytes"), memory["peak_step"].get<std::string>(),
      kib("scratch_bytes"));
}

Outcome inspect_artifact(const Options& options) {
  const Plan plan = read_artifact(options.file);  // checks every digest
  Outcome outcome;
  outcome.result = plan_summary(plan);
  outcome.result["kind"] = "artifact";
  outcome.result["digest"] = artifact_digest(plan);
  outcome.result["model"] = plan.model;
  outcome.result["provenance"] = plan.provenance;
  outcome.result["quality"] = plan.quality;
  outcome.result["file_bytes"] = std::filesystem::file_size(options.file);
  if (!options.tensors.empty()) {
    const std::regex wanted = pattern(options.tensors);
    outcome.result["tensors"] = nlohmann::json::array();
    for (const auto& [name, tensor] : plan.tensors) {
      if (std::regex_search(name, wanted)) list_tensor(outcome, name, tensor.data, tensor.layout);
    }
    return outcome;
  }
  outcome.text = print(plan);
  try {
    outcome.result["memory"] = memory_of(*Program::from_plan(plan));
    outcome.text += memory_text(outcome.result["memory"]);
  } catch (const Error& error) {  // no kernel here: what is in the file can be said all the same
    if (error.code() != ErrorCode::kUnsupported) throw;
  }
  // Whatever wrote the file, provenance is any JSON.
  const nlohmann::json::json_pointer scheme("/recipe/scheme");
  if (plan.provenance.contains(scheme) && plan.provenance[scheme].is_string())
    outcome.text += fmt::format("scheme {}\n", plan.provenance[scheme].get<std::string>());
  outcome.text += fmt::format("file {} bytes\ndigest {}\n",
                              std::filesystem::file_size(options.file), artifact_digest(plan));
  return outcome;
}

Outcome inspect_safetensors(const Options& options) {
  const SafetensorsFile file = read_safetensors(options.file);
  const std::regex wanted = pattern(options.tensors);
  Outcome outcome;
  outcome.result = {
      {"kind", "safetensors"}, {"metadata", file.metadata}, {"tensors", nlohmann::json::array()}};
  for (const auto& [name, tensor] : file.tensors) {
    if (std::regex_search(name, wanted)) list_tensor(outcome, name, tensor, "plain");
  }
  return outcome;
}

Outcome inspect(const Options& options, const Context& context) {
  if (!std::filesystem::exists(options.file)) {
    throw Error(ErrorCode::kNotFound, fmt::format("inspect: \"{}\": no such file", options.file));
  }
  if (is_artifact(options.file)) return inspect_artifact(options);
  if (options.file.ends_with(".rq.safetensors")) return inspect_artifact(options);
  if (options.file.ends_with(".safetensors")) return inspect_safetensors(options);
  if (context.parts == nullptr) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("inspect: \"{}\": not an artifact, and this build has no importer",
                            options.file),
                "use the program repquant, built with -DREPQUANT_TORCH=ON");
  }
  return context.parts->inspect_model(options.file);
}

}  // namespace

Run declare_inspect(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("file", options->file, "Artifact, model or .safetensors")->required();
  app.add_option("--tensors", options->tensors,
                 "List tensors whose name matches this regular expression");
  app.add_flag("--plan", options->plan, "List the steps (the default for artifacts)");
  app.add_flag("--verify", options->verify, "Check digests (always done)");
  return [options](const Context& context) { return inspect(*options, context); };
}

}  // namespace repquant::cli
