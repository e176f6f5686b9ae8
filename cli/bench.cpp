// repquant bench: an artifact against others, in alternating windows of one run.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <thread>

#include <fmt/format.h>

#include "cli/bench_data.h"
#include "cli/bench_kernels.h"
#include "cli/commands.h"
#include "cli/exit_codes.h"
#include "cli/machine_probes.h"
#include "repquant/core/error.h"
#include "repquant/core/fields.h"
#include "repquant/core/machine.h"
#include "repquant/core/version.h"
#include "repquant/evaluate/metrics.h"

namespace repquant::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kProbeSeconds = 0.005;
constexpr auto kPause = std::chrono::milliseconds(5);  // threads that spin for work go to sleep

struct Options {
  std::string artifact, float_model, shapes, format = "text";
  std::vector<std::string> against;
  DataRequest data;
  int64_t batch = 1, rounds = 15;
  double window_ms = 10;
};

// ---- what is measured ---------------------------------------------------------------------------

struct Samples {                             // one of each a round
  std::vector<std::vector<double>> seconds;  // by contender
  std::vector<double> peak, peak_of_one, bandwidth, clock;
  std::vector<std::vector<StepTime>> profiles;
};

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

double median(const std::vector<double>& values) { return quantile(values, 0.5); }

// The others over the first.
std::vector<double> ratios(const Samples& samples, size_t contender) {
  std::vector<double> result;
  for (size_t round = 0; round < samples.seconds[0].size(); ++round)
    result.push_back(samples.seconds[contender][round] / samples.seconds[0][round]);
  return result;
}

// Element of the first difference in bits.
std::optional<size_t> first_difference(const Tensor& a, const Tensor& b) {
  const auto x = a.as<float>(), y = b.as<float>();
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::memcmp(&x[i], &y[i], sizeof(float)) != 0) return i;
  }
  return std::nullopt;
}

Samples measure(const Options& options, const std::vector<Contender>& contenders,
                TimedSession& profiled, runtime::Isa isa, const Context& context) {
  Samples samples;
  ThreadPool alone(1);
  samples.seconds.resize(contenders.size());
  for (int64_t round = 0; round < options.rounds; ++round) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      const size_t turn = (i + static_cast<size_t>(round)) % contenders.size();
      if (context.stop->raised()) throw Interrupted("bench: interrupted");
      std::this_thread::sleep_for(kPause);
      samples.seconds[turn].push_back(contenders[turn].window(options.window_ms / 1e3));
    }
    std::this_thread::sleep_for(kPause);
    profiled.run();
    profiled.run_profiled(samples.profiles.emplace_back());
    samples.peak_of_one.push_back(register_peak(isa, alone, kProbeSeconds));
    samples.peak.push_back(context.pool.size() == 1
                               ? samples.peak_of_one.back()
                               : register_peak(isa, context.pool, kProbeSeconds));
    samples.clock.push_back(clock_hz(kProbeSeconds));
    samples.bandwidth.push_back(read_bandwidth());
    context.sink.progress({"bench", fmt::format("round {}/{}", round + 1, options.rounds), "", "",
                           static_cast<double>(round + 1) / static_cast<double>(options.rounds)});
  }
  return samples;
}

// ---- who runs -----------------------------------------------------------------------------------

const std::vector<std::string> kContenders{"onnxruntime", "onnxruntime_fp32", "onnxruntime_int8",
                                           "float",       "artifact:PATH",    "isa:NAME",
                                           "threads:N"};

bool is_named(const std::string& name, const char* prefix) { return name.rfind(prefix, 0) == 0; }

void check(Options& options) {
  auto& names = options.against;
  for (auto it = names.begin(); it != names.end();)
    it = std::find(names.begin(), it, *it) != it ? names.erase(it) : it + 1;
  for (const std::string& name : options.against) {
    if (name == "onednn") {
      throw Error(ErrorCode::kUnsupported, "bench: onednn: not a contender of this build",
                  "onnxruntime, float, artifact:PATH, isa:NAME and threads:N are");
    }
    const bool known = std::find(kContenders.begin(), kContenders.end(), name) != kContenders.end();
    if (!known && !is_named(name, "artifact:") && !is_named(name, "isa:") &&
        !is_named(name, "threads:")) {
      throw Error(ErrorCode::kInvalidArgument,
                  "bench: --against: " + unknown_name("contender", name, kContenders));
    }
  }
}

bool wants(const Options& options, const std::string& name) {
  return std::any_of(options.against.begin(), options.against.end(), [&](const auto& given) {
    return given == name || (given == "onnxruntime" && is_named(name, "onnxruntime_"));
  });
}

Contender threads_contender(const std::string& name, const Options& options, const BenchData& data,
                            const Context& context) {
  const std::string given = name.substr(8);
  int threads = 0;
  const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), threads);
  if (error != std::errc() || end != given.data() + given.size() || threads < 1 || threads > 1024) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("bench: --against: {}: expected threads:N, N of 1 to 1024", name),
                "--against threads:1 compares with one thread");
  }
  return session_contender(name, options.artifact, context.common.isa, data, context,
                           std::make_shared<ThreadPool>(threads));
}

std::vector<Contender> open_contenders(const Options& options, const json& record,
                                       const BenchData& data, const Context& context) {
  std::vector<Contender> all;
  all.push_back(session_contender("repquant", options.artifact, context.common.isa, data, context));
  const bool fp32 = wants(options, "onnxruntime_fp32"), int8 = wants(options, "onnxruntime_int8"),
             own = wants(options, "float");
  fs::path model;
  if (fp32 || int8 || own) model = find_float_model(options.float_model, options.artifact, record);
  if (fp32 || int8) {
    const OnnxRuntime onnxruntime(model, data, context);
    if (fp32) all.push_back(onnxruntime.fp32());
    if (int8) all.push_back(onnxruntime.int8());
  }
  if (own) all.push_back(float_contender(model, data, context));
  for (const std::string& name : options.against) {
    if (is_named(name, "artifact:")) {
      all.push_back(session_contender(name, name.substr(9), context.common.isa, data, context));
    }
    if (is_named(name, "isa:"))
      all.push_back(session_contender(name, options.artifact, name.substr(4), data, context));
    if (is_named(name, "threads:")) all.push_back(threads_contender(name, options, data, context));
  }
  return all;
}

// ---- what is shown ------------------------------------------------------------------------------

const char* category(std::string_view kernel) {
  for (const char* product : {"gemm", "conv", "depthwise"}) {
    if (kernel.rfind(product, 0) == 0) return "gemm";
  }
  return kernel.rfind("attention", 0) == 0 ? "attention" : "other";
}

// Medians over the rounds, of sums over steps.
json profile_json(const Samples& samples, const Program& program) {
  const auto& steps = program.plan().steps;
  std::map<std::string, std::vector<double>> parts, ops;
  std::vector<std::vector<double>> each(steps.size());
  for (const auto& times : samples.profiles) {
    std::map<std::string, double> part_sums{{"gemm", 0}, {"attention", 0}, {"other", 0}}, op_sums;
    for (const StepTime& time : times) {
      const auto step = static_cast<size_t>(time.step);
      const double ms = static_cast<double>(time.nanoseconds) / 1e6;
      part_sums[category(program.kernel_for(step))] += ms;
      part_sums["total"] += ms;
      op_sums[steps[step].op] += ms;
      each[step].push_back(ms);
    }
    for (const auto& [name, sum] : part_sums) parts[name].push_back(sum);
    for (const auto& [name, sum] : op_sums) ops[name].push_back(sum);
  }
  json result;
  for (const auto& [name, sums] : parts) result[name + "_ms"] = median(sums);
  for (const auto& [name, sums] : ops) result["ops"][name] = median(sums);
  for (size_t i = 0; i < steps.size(); ++i) {
    result["steps"].push_back({{"step", steps[i].name},
                               {"op", steps[i].op},
                               {"kernel", program.kernel_for(i)},
                               {"ms", median(each[i])}});
  }
  return result;
}

json contender_json(const Contender& contender, const std::vector<double>& seconds,
                    const Tensor* reference) {
  std::vector<double> ms;
  for (const double s : seconds) ms.push_back(s * 1e3);
  json row = contender.info;
  row.update({{"best_ms", quantile(ms, 0)},
              {"median_ms", median(ms)},
              {"p10_ms", quantile(ms, 0.1)},
              {"p90_ms", quantile(ms, 0.9)},
              {"samples", ms}});
  if (reference != nullptr && reference != &contender.output) {
    const bool comparable = reference->size() == contender.output.size();
    const double db =
        comparable ? sqnr_db(reference->as<float>(), contender.output.as<float>()) : NAN;
    row["sqnr_db"] = std::isfinite(db) ? json(db) : json();
  }
  return row;
}

json machine_json(const Samples& samples, const Program& program, int threads) {
  std::vector<double> gains;
  for (size_t i = 0; i < samples.peak.size(); ++i)
    gains.push_back(samples.peak_of_one[i] > 0 ? samples.peak[i] / samples.peak_of_one[i] : 0);
  return {{"cpu", cpu_name()},
          {"isa", program.isa()},
          {"threads", threads},
          {"clock_ghz", median(samples.clock) / 1e9},
          {"register_peak_gops", median(samples.peak) / 1e9},
          {"register_peak_gain", median(gains)},  // all threads over one, of the same round
          {"read_gb_per_s", median(samples.bandwidth) / 1e9}};
}

json result_json(const Options& options, const std::vector<Contender>& contenders,
                 const Samples& samples, const BenchData& data, const Program& program,
                 const Context& context) {
  const Tensor* reference = nullptr;  // a float answer, the first of them
  for (const Contender& contender : contenders) {
    const bool is_float = contender.name == "onnxruntime_fp32" || contender.name == "float";
    if (is_float && reference == nullptr) reference = &contender.output;
  }
  json result = {{"artifact", options.artifact},
                 {"verified", true},
                 {"batch", options.batch},
                 {"rounds", options.rounds},
                 {"window_ms", options.window_ms},
                 {"data", data.source},
                 {"includes", "float input to float output, on every side"},
                 {"machine", machine_json(samples, program, context.pool.size())},
                 {"probes",
                  {{"clock_hz", samples.clock},
                   {"register_peak_ops_per_s", samples.peak},
                   {"register_peak_of_one_thread", samples.peak_of_one},
                   {"read_bytes_per_s", samples.bandwidth}}},
                 {"versions", {{"repquant", kVersion}}},
                 {"contenders", json::object()},
                 {"ratios", json::object()},
                 {"ratio_spread", json::object()},
                 {"profile", profile_json(samples, program)}};
  for (size_t i = 0; i < contenders.size(); ++i) {
    const Contender& contender = contenders[i];
    result["contenders"][contender.name] = contender_json(contender, samples.seconds[i], reference);
    for (const char* program_name : {"onnxruntime", "python"}) {
      if (contender.info.contains(program_name))
        result["versions"][program_name] = contender.info[program_name];
    }
    if (contender.name == "float") result["versions"]["float"] = contender.info["version"];
    if (i == 0) continue;
    const std::vector<double> each = ratios(samples, i);
    result["ratios"][contender.name] = median(each);
    result["ratio_spread"][contender.name] = {quantile(each, 0.1), quantile(each, 0.9)};
  }
  return result;
}

std::string table(const Options& options, const std::vector<Contender>& contenders,
                  const json& result) {
  const bool markdown = options.format == "markdown";
  const json& machine = result["machine"];
  std::string text = fmt::format(
      "{}, batch {}, {} thread{}, {}, {}; {} rounds, windows of {} ms or one call\n{}",
      fs::path(options.artifact).filename().string(), options.batch, machine["threads"].get<int>(),
      machine["threads"] == 1 ? "" : "s", machine["isa"].get<std::string>(),
      machine["cpu"].get<std::string>(), options.rounds, options.window_ms, markdown ? "\n" : "");
  size_t width = 0;
  for (const Contender& contender : contenders) width = std::max(width, contender.name.size());
  const auto add = [&](const std::string& name, auto... cells) {
    if (markdown) {
      text += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", name, cells...);
      return;
    }
    const std::string line =
        fmt::format("{:<{}}{:>12}{:>12}{:>20}{:>9}{:>16}{:>10}", name, width, cells...);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  add("contender", "best ms", "median ms", "10-90 %", "ratio", "10-90 %", "SQNR dB");
  if (markdown) add("---", "---:", "---:", "---:", "---:", "---:", "---:");
  for (const Contender& contender : contenders) {
    const json& row = result["contenders"][contender.name];
    const bool other = result["ratios"].contains(contender.name);
    const json spread = other ? result["ratio_spread"][contender.name] : json();
    add(contender.name, fmt::format("{:.3f}", row["best_ms"].get<double>()),
        fmt::format("{:.3f}", row["median_ms"].get<double>()),
        fmt::format("{:.3f} .. {:.3f}", row["p10_ms"].get<double>(), row["p90_ms"].get<double>()),
        other ? fmt::format("{:.2f}", result["ratios"][contender.name].get<double>()) : "1",
        other ? fmt::format("{:.2f} .. {:.2f}", spread[0].get<double>(), spread[1].get<double>())
              : "",
        row.contains("sqnr_db") && row["sqnr_db"].is_number()
            ? fmt::format("{:.1f}", row["sqnr_db"].get<double>())
            : "");
  }
  const json& profile = result["profile"];
  text +=
      fmt::format("{}of repquant: products {:.3f} ms, attention {:.3f} ms, the rest {:.3f} ms\n",
                  markdown ? "\n" : "", profile["gemm_ms"].get<double>(),
                  profile["attention_ms"].get<double>(), profile["other_ms"].get<double>());
  return text + fmt::format("{}register peak {:.0f} Gop/s, read {:.1f} GB/s, clock {:.2f} GHz\n",
                            markdown ? "\n" : "", machine["register_peak_gops"].get<double>(),
                            machine["read_gb_per_s"].get<double>(),
                            machine["clock_ghz"].get<double>());
}

Outcome differs(const Options& options, const Tensor& law, const Tensor& got, size_t element,
                const Program& program) {
  const auto items = static_cast<size_t>(got.shape()[0]);
  const size_t item = element / (static_cast<size_t>(got.size()) / items);
  Outcome outcome;
  outcome.exit = kVerifyFailed;
  outcome.result = {{"artifact", options.artifact},
                    {"verified", false},
                    {"batch", options.batch},
                    {"isa", program.isa()},
                    {"item", item},
                    {"element", element % (static_cast<size_t>(got.size()) / items)}};
  outcome.failure = fmt::format(
      "bench: \"{}\": item {}, element {}: expected {} as the scalar rows have it, got "
      "{} from those of {}",
      options.artifact, item, outcome.result["element"].get<size_t>(), law.as<float>()[element],
      got.as<float>()[element], program.isa());
  outcome.hint = "nothing was timed; `repquant verify` names the step";
  return outcome;
}

Outcome bench(Options& options, const Context& context) {
  if (options.artifact == "kernels") {
    return bench_kernels({options.shapes, options.rounds, options.window_ms}, context);
  }
  check(options);
  const OpenedModel model = open_model(options.artifact, context);
  if (model.program == nullptr) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("bench: \"{}\": expected an artifact", options.artifact));
  }
  const json record = run_record_beside(options.artifact);
  const BenchData data = make_bench_data(options.data, record, model, options.batch,
                                         wants(options, "onnxruntime_int8"), context);
  TimedSession chosen(model.program, context.pool, data.input);
  chosen.run();
  {
    const auto scalar = Program::open(options.artifact, {.isa = "scalar"});
    TimedSession law(scalar, context.pool, data.input);
    law.run();
    if (const auto element = first_difference(law.output(), chosen.output()))
      return differs(options, law.output(), chosen.output(), *element, *model.program);
  }
  const std::vector<Contender> contenders = open_contenders(options, record, data, context);
  const Samples samples =
      measure(options, contenders, chosen, runtime::parse_isa(model.program->isa()), context);
  Outcome outcome;
  outcome.result = result_json(options, contenders, samples, data, *model.program, context);
  outcome.text = table(options, contenders, outcome.result);
  return outcome;
}

}  // namespace

Run declare_bench(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("artifact", options->artifact, "Artifact, or kernels: rows of the kernel families")
      ->required();
  app.add_option("--against", options->against,
                 "Of onnxruntime, float, artifact:PATH, isa:NAME, threads:N; commas between")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--float", options->float_model,
                 "Float model (default: the one of the run record beside the artifact)");
  app.add_option("--shapes", options->shapes,
                 "Of kernels: M,K,N;... or families alone (default: common ones and families)");
  app.add_option("--batch", options->batch, "Items a call")->check(CLI::Range(1, 4096));
  app.add_option("--rounds", options->rounds, "Rounds, 15 or more for a claim")
      ->check(CLI::Range(1, 100000));
  app.add_option("--window", options->window_ms, "Milliseconds of each contender a round")
      ->check(CLI::Range(5.0, 60000.0));
  app.add_option("--format", options->format, "text or markdown")
      ->check(CLI::IsMember({"text", "markdown"}));
  declare_data(app, options->data);
  declare_preprocess(app, options->data.preprocess);
  return [options](const Context& context) { return bench(*options, context); };
}

}  // namespace repquant::cli
