// repquant doctor: what this machine and this build can do.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "repquant/core/example_plan.h"
#include "repquant/core/machine.h"
#include "repquant/core/version.h"
#include "repquant/evaluate/verify.h"
#include "repquant/runtime/kernels/isa.h"

namespace repquant::cli {
namespace {

std::vector<std::string> cpu_features() {
  const std::vector<std::string> wanted{"sse4_1",   "avx2",     "fma",   "avx512f", "avx512_vnni",
                                        "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm"};
  std::vector<std::string> found = cpu_flags();
  std::erase_if(found, [&](const std::string& flag) {
    return std::find(wanted.begin(), wanted.end(), flag) == wanted.end();
  });
  return found;
}

// A tiny plan through simulator and runtime.
std::string self_test(ThreadPool& pool) {
  const Plan plan = example_plan();
  std::vector<Tensor> inputs;
  for (const int index : plan.inputs) {
    Shape shape{2};
    const Shape& item = plan.buffers.at(static_cast<size_t>(index)).item_shape;
    shape.insert(shape.end(), item.begin(), item.end());
    Tensor input(DType::kF32, shape);
    uint32_t state = 1;
    for (float& x : input.as<float>()) {
      state = state * 1664525u + 1013904223u;
      x = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
    }
    inputs.push_back(std::move(input));
  }
  const auto found = first_difference(plan, Program::from_plan(plan), inputs, &pool);
  return found ? fmt::format("step \"{}\" differs", found->step) : "";
}

Outcome doctor(const std::string& path, const Context& context) {
  Outcome outcome;
  const std::string failed = self_test(context.pool);
  const std::string libraries = context.parts != nullptr ? context.parts->library_versions()
                                                         : "none (no calibration in this build)";
  outcome.result = {{"version", kVersion},
                    {"cpu", cpu_name()},
                    {"features", cpu_features()},
                    {"isas", runtime::available_isas()},
                    {"threads", context.pool.size()},
                    {"memory_bytes", memory_bytes()},
                    {"libraries", libraries},
                    {"self_test", failed.empty() ? "passed" : failed}};
  outcome.text = fmt::format(
      "repquant   {}\nprocessor  {}\nfeatures   {}\nkernels    {}\nthreads    {}\nmemory     "
      "{:.1f} GiB\nlibraries  {}\nself-test  {}\n",
      kVersion, cpu_name(), fmt::join(cpu_features(), " "),
      fmt::join(runtime::available_isas(), " "), context.pool.size(),
      static_cast<double>(memory_bytes()) / 1073741824.0, libraries,
      failed.empty() ? "passed" : failed);
  if (!failed.empty()) {
    outcome.exit = kVerifyFailed;
    outcome.failure = "doctor: self-test: " + failed;
  }
  if (path.empty()) return outcome;
  const OpenedModel model = open_model(path, context);
  nlohmann::json row = {{"file", path}, {"kind", model.kind}};
  if (model.program != nullptr) {
    row["weight_bytes"] = model.program->weight_bytes();
    row["session_bytes"] = model.program->session_bytes(1, context.pool.size());
    outcome.text += fmt::format("model      {}: {} bytes of weights, {} of scratch\n", path,
                                model.program->weight_bytes(),
                                model.program->session_bytes(1, context.pool.size()));
  } else {
    outcome.text += fmt::format("model      {}: {}, suggested scheme w4a8\n", path, model.kind);
  }
  outcome.result["model"] = row;
  return outcome;
}

}  // namespace

Run declare_doctor(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  app.add_option("model", *path, "Artifact or model to judge, too");
  return [path](const Context& context) { return doctor(*path, context); };
}

}  // namespace repquant::cli
