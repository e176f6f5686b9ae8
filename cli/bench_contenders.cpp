#include "cli/bench_contenders.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include <fmt/format.h>

#include "cli/child_process.h"
#include "repquant/core/error.h"
#include "repquant/data/npy.h"

namespace repquant::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

Shape output_shape(const Plan& plan, int64_t batch) {
  if (plan.inputs.size() != 1 || plan.outputs.size() != 1) {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("bench: expected an artifact of one input and one output, got {} and {}",
                    plan.inputs.size(), plan.outputs.size()));
  }
  Shape shape{batch};
  const Shape& item = plan.buffers.at(static_cast<size_t>(plan.outputs[0])).item_shape;
  shape.insert(shape.end(), item.begin(), item.end());
  return shape;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Installed: ../share/repquant/bench beside the program; else the source tree's.
fs::path script(const std::string& name) {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path tail = fs::path("bench") / "onnxruntime" / name;
  for (const fs::path& root : {program.parent_path().parent_path() / "share" / "repquant",
                               fs::path(REPQUANT_SOURCE_FOLDER)}) {
    if (fs::exists(root / tail)) return root / tail;
  }
  throw Error(ErrorCode::kUnsupported,
              fmt::format("bench: onnxruntime: expected share/repquant/bench/onnxruntime/{} beside "
                          "the program, got none",
                          name),
              "install with `make install`, or run the program of the source tree");
}

std::string python() {
  if (const std::string given = environment("REPQUANT_PYTHON"); !given.empty()) return given;
  const fs::path own = fs::path(REPQUANT_SOURCE_FOLDER) / ".venv" / "bin" / "python";
  return fs::exists(own) ? own.string() : "python3";
}

fs::path cache_folder() {
  const std::string cache = environment("XDG_CACHE_HOME"), home = environment("HOME");
  const fs::path root = !cache.empty()  ? fs::path(cache)
                        : !home.empty() ? fs::path(home) / ".cache"
                                        : fs::temp_directory_path();
  return root / "repquant" / "bench";
}

json hear(const std::string& name, ChildProcess& child, const Context& context) {
  const std::string line = child.hear(context.stop);
  json reply = json::parse(line, nullptr, false);
  if (!reply.is_object()) {
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("bench: {}: expected a JSON document, got \"{}\"", name, line.substr(0, 80)));
  }
  if (reply.contains("missing")) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("bench: {}: Python lacks {}: {}", name,
                            reply["missing"].get<std::string>(), reply.value("message", "")),
                "pip install onnxruntime onnx numpy, and name its Python with REPQUANT_PYTHON");
  }
  return reply;
}

}  // namespace

double timed_window(const std::function<void()>& call, double seconds) {
  using Clock = std::chrono::steady_clock;
  call();
  const Clock::time_point begin = Clock::now();
  std::chrono::duration<double> spent{0};
  int64_t calls = 0;
  while (calls == 0 || spent.count() < seconds) {
    call();
    ++calls;
    spent = Clock::now() - begin;
  }
  return spent.count() / static_cast<double>(calls);
}

TimedSession::TimedSession(std::shared_ptr<const Program> program, ThreadPool& pool,
                           const Tensor& input)
    : input_(input),
      output_(DType::kF32, output_shape(program->plan(), input.shape()[0])),
      session_(std::move(program), {.max_batch = input.shape()[0], .pool = &pool}),
      in_{std::as_const(input_).view()},
      out_{output_.view()} {}

void TimedSession::run() { session_.run(in_, out_); }

void TimedSession::run_profiled(std::vector<StepTime>& times) {
  session_.run_profiled(in_, out_, times);
}

Contender session_contender(const std::string& name, const fs::path& artifact,
                            const std::string& isa, const BenchData& data, const Context& context,
                            std::shared_ptr<ThreadPool> pool) {
  const auto program = Program::open(
      artifact,
      {.isa = isa, .memory_cap = context.common.memory, .max_batch = data.input.shape()[0]});
  const auto session =
      std::make_shared<TimedSession>(program, pool != nullptr ? *pool : context.pool, data.input);
  session->run();
  Contender contender;
  contender.name = name;
  contender.output = session->output();
  contender.info = {{"file", artifact.filename().string()}, {"isa", program->isa()}};
  contender.window = [pool, session](double seconds) {
    return timed_window([&] { session->run(); }, seconds);
  };
  return contender;
}

Contender float_contender(const fs::path& model, const BenchData& data, const Context& context) {
  const auto opened = std::make_shared<OpenedModel>(open_model(model, context));
  Contender contender;
  contender.name = "float";
  contender.output = opened->run(data.input);
  contender.info = {{"file", model.filename().string()},
                    {"version", context.parts == nullptr ? "" : context.parts->library_versions()}};
  contender.window = [opened, &data](double seconds) {
    return timed_window([&] { (void)opened->run(data.input); }, seconds);
  };
  return contender;
}

OnnxRuntime::OnnxRuntime(fs::path model, const BenchData& data, const Context& context)
    : model_(std::move(model)), context_(context) {
  std::string name = fs::temp_directory_path() / "repquant_bench_XXXXXX";
  if (::mkdtemp(name.data()) == nullptr)
    throw Error(ErrorCode::kResourceExhausted, "bench: no room for temporary files");
  folder_ = name;
  write_npy(folder_ / "input.npy", data.input.view());
  write_npy(folder_ / "calibration.npy", data.calibration.view());
}

OnnxRuntime::~OnnxRuntime() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::vector<std::string> OnnxRuntime::command(const std::string& name) const {
  return {python(), script(name).string()};
}

Contender OnnxRuntime::start(const std::string& name, const fs::path& model) const {
  std::vector<std::string> words = command("contender.py");
  const fs::path answer = folder_ / (name + ".npy");
  words.insert(words.end(), {model.string(), folder_ / "input.npy", answer, "--threads",
                             std::to_string(context_.pool.size())});
  const auto child = std::make_shared<ChildProcess>(name, words);
  Contender contender;
  contender.name = name;
  contender.info = hear(name, *child, context_);
  contender.info.erase("ready");
  contender.output = read_npy(answer);
  if (contender.info.value("calls", 1) > 1) {
    context_.sink.warning("W011", name,
                          fmt::format("the model is fixed to a smaller batch: {} calls for one "
                                      "of ours",
                                      contender.info["calls"].get<int>()),
                          "export it with a dynamic batch");
  }
  contender.window = [child, name, &context = context_](double seconds) {
    child->say(fmt::format("{:.6f}", seconds));
    const json reply = hear(name, *child, context);
    const double spent = reply.value("seconds", 0.0);
    if (spent > 0) return spent;
    throw Error(ErrorCode::kUnsupported,
                fmt::format("bench: {}: expected seconds, got {}", name, reply.dump()));
  };
  return contender;
}

Contender OnnxRuntime::fp32() const { return start("onnxruntime_fp32", model_); }

Contender OnnxRuntime::int8() const {
  const std::string name = "onnxruntime_int8";
  std::vector<std::string> words = command("quantize.py");
  words.insert(words.end(),
               {model_.string(), folder_ / "calibration.npy", folder_ / "input.npy", "--cache",
                cache_folder(), "--threads", std::to_string(context_.pool.size())});
  json chosen;
  {
    ChildProcess child(name, words);
    for (chosen = hear(name, child, context_); chosen.contains("progress");
         chosen = hear(name, child, context_)) {
      context_.sink.info(chosen["progress"].get<std::string>());
    }
  }
  std::string text;
  for (json& variant : chosen.at("variants")) {
    text += fmt::format("{}{} {:.2f} ms", text.empty() ? "" : ", ",
                        variant.at("name").get<std::string>(), variant.at("best_ms").get<double>());
    variant.erase("path");
  }
  const std::string fastest = chosen.at("fastest");
  context_.sink.info(fmt::format("onnxruntime int8: {}: taking {}", text, fastest));
  Contender contender = start(name, chosen.at("path").get<std::string>());
  contender.info["variant"] = fastest;
  contender.info["variants"] = chosen["variants"];
  if (!chosen.value("failed", json::object()).empty()) contender.info["failed"] = chosen["failed"];
  return contender;
}

}  // namespace repquant::cli
