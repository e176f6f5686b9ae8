// repquant kernels: the rows of every kernel family, and which of them a model runs.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/commands.h"
#include "repquant/core/error.h"
#include "repquant/core/machine.h"
#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/kernels/attention_i8/attention_i8.h"
#include "repquant/runtime/kernels/depthwise_i8/depthwise_i8.h"
#include "repquant/runtime/kernels/elementwise/elementwise.h"
#include "repquant/runtime/kernels/floats/floats.h"
#include "repquant/runtime/kernels/gemm_i4/gemm_i4.h"
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/matmul_f32/matmul_f32.h"
#include "repquant/runtime/kernels/movement/movement.h"
#include "repquant/runtime/kernels/norm/norm.h"
#include "repquant/runtime/kernels/softmax/softmax.h"

namespace repquant::cli {
namespace {

using nlohmann::json;
using runtime::Isa;

constexpr int64_t kGemvRows = 4;  // of an item

struct Family {
  std::string name;
  std::vector<std::pair<std::string, Isa>> rows;  // best first
};

template <class Row> Family family(const char* name, std::span<const Row* const> rows) {
  Family result{name, {}};
  for (const Row* row : rows) result.rows.emplace_back(row->name, row->isa);
  return result;
}

std::vector<Family> families() {
  using namespace runtime;
  return {family("activation", activation_kernels()),
          family("attention_i8", attention_i8_kernels()),
          family("elementwise", elementwise_kernels()),
          family("gemm_i8", gemm_i8_kernels()),
          family("gemm_i4", gemm_i4_kernels()),
          family("movement", movement_kernels()),
          family("norm", norm_kernels()),
          family("depthwise_i8", depthwise_i8_kernels()),
          family("floats", floats_kernels()),
          family("matmul_f32", matmul_f32_kernels()),
          family("softmax", softmax_kernels())};
}

std::string missing(Isa isa) {
  for (const runtime::IsaSupport& support : runtime::isa_support()) {
    if (support.isa == isa) return support.missing;
  }
  return "";
}

json rows_json(const Family& family) {
  json rows = json::array();
  for (const auto& [name, isa] : family.rows) {
    rows.push_back({{"kernel", name},
                    {"isa", runtime::isa_name(isa)},
                    {"available", runtime::isa_available(isa)},
                    {"missing", missing(isa)}});
  }
  return {{"family", family.name}, {"rows", rows}};
}

std::string families_text(const std::vector<Family>& all) {
  const auto& levels = runtime::isa_support();
  const auto trimmed = [](const std::string& line) {
    return line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  std::string head = fmt::format("{:<16}", "family");
  for (const auto& level : levels) head += fmt::format("{:<12}", runtime::isa_name(level.isa));
  std::string text = trimmed(head);
  for (const Family& family : all) {
    std::string line = fmt::format("{:<16}", family.name);
    for (const auto& level : levels) {
      const bool has = std::any_of(family.rows.begin(), family.rows.end(),
                                   [&](const auto& row) { return row.second == level.isa; });
      line += fmt::format("{:<12}", !has ? "-" : level.available ? "yes" : "not here");
    }
    text += trimmed(line);
  }
  for (const auto& level : levels) {
    if (!level.available)
      text += fmt::format("{} needs what this machine lacks: {}\n", runtime::isa_name(level.isa),
                          level.missing);
  }
  return text;
}

// Why a step runs `kernel` and no row above it.
std::string reason(const std::vector<Family>& all, const std::string& kernel, Isa limit) {
  for (const Family& family : all) {
    const auto chosen = std::find_if(family.rows.begin(), family.rows.end(),
                                     [&](const auto& row) { return row.first == kernel; });
    if (chosen == family.rows.end()) continue;
    if (family.rows.size() == 1) return "the family's only row";
    for (auto row = family.rows.begin(); row != chosen; ++row) {
      if (runtime::isa_available(row->second) && row->second > limit)
        return fmt::format("best row within {}, which was asked for", runtime::isa_name(limit));
      if (runtime::isa_available(row->second))
        return fmt::format("the {} row does not take this step", runtime::isa_name(row->second));
    }
    if (chosen == family.rows.begin()) return "the family's best row";
    return fmt::format("best row here: {} needs {}", runtime::isa_name(family.rows[0].second),
                       missing(family.rows[0].second));
  }
  return "no row of a table";
}

void add_model(Outcome& outcome, const std::vector<Family>& all, const std::string& path,
               const Context& context) {
  const OpenedModel model = open_model(path, context);
  if (model.program == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("kernels: \"{}\": expected an artifact", path));
  }
  const Isa limit = runtime::parse_isa(model.program->isa());
  const auto& steps = model.program->plan().steps;
  outcome.result["model"] = path;
  outcome.result["isa"] = model.program->isa();
  outcome.result["steps"] = json::array();
  outcome.text +=
      fmt::format("\n{:<32} {:<12} {:<24} {:>9}  {}\n", "step", "op", "kernel", "packed B", "why");
  for (size_t i = 0; i < steps.size(); ++i) {
    const std::string kernel(model.program->kernel_for(i));
    std::string why = reason(all, kernel, limit);
    if (steps[i].op == "linear" && model.program->kernel(i).units() <= kGemvRows &&
        !kernel.ends_with("/scalar"))
      why += "; gemv: its tiles of up to 4 rows, which reading weights holds up";
    const size_t packed = model.program->kernel(i).packed_bytes();
    outcome.result["steps"].push_back({{"step", steps[i].name},
                                       {"op", steps[i].op},
                                       {"kernel", kernel},
                                       {"packed_bytes", packed},
                                       {"reason", why}});
    outcome.text += fmt::format("{:<32} {:<12} {:<24} {:>9}  {}\n", steps[i].name, steps[i].op,
                                kernel, packed == 0 ? "-" : std::to_string(packed), why);
  }
}

Outcome kernels(const std::string& path, const Context& context) {
  const std::vector<Family> all = families();
  Outcome outcome;
  outcome.result = {{"cpu", cpu_name()},
                    {"isa", runtime::isa_name(runtime::parse_isa(context.common.isa))},
                    {"isas", json::array()},
                    {"families", json::array()}};
  for (const auto& level : runtime::isa_support()) {
    outcome.result["isas"].push_back({{"isa", runtime::isa_name(level.isa)},
                                      {"available", level.available},
                                      {"missing", level.missing}});
  }
  for (const Family& family : all) outcome.result["families"].push_back(rows_json(family));
  outcome.text = families_text(all);
  if (!path.empty()) add_model(outcome, all, path, context);
  return outcome;
}

}  // namespace

Run declare_kernels(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  app.add_option("model", *path, "Artifact: the row of every step and why");
  return [path](const Context& context) { return kernels(*path, context); };
}

}  // namespace repquant::cli
