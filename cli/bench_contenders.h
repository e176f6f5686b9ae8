#pragma once
// Whoever runs against an artifact in `repquant bench`.
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "repquant/runtime/session.h"

namespace repquant::cli {

struct Contender {
  std::string name;  // "repquant", "onnxruntime_int8", "isa:avx2", ...
  // Mean seconds of a call over a window of at least `seconds`, after one call that is not timed.
  std::function<double(double seconds)> window;
  Tensor output;                                   // f32, of the input that is timed
  nlohmann::json info = nlohmann::json::object();  // versions, file, variants
};

// What all are given: float in, float out.
struct BenchData {
  Tensor input;        // f32 [batch, item...]
  Tensor calibration;  // f32 [up to 32, item...], of onnxruntime's quantizer
  std::string source;  // for people
};

// One session and its buffers. `run` is a call.
class TimedSession {
 public:
  TimedSession(std::shared_ptr<const Program> program, ThreadPool& pool, const Tensor& input);
  void run();
  void run_profiled(std::vector<StepTime>& times);
  const Tensor& output() const { return output_; }

 private:
  Tensor input_, output_;
  Session session_;
  std::vector<ConstTensorView> in_;
  std::vector<TensorView> out_;
};

double timed_window(const std::function<void()>& call, double seconds);

Contender session_contender(const std::string& name, const std::filesystem::path& artifact,
                            const std::string& isa, const BenchData& data, const Context& context,
                            std::shared_ptr<ThreadPool> pool = nullptr);  // null: of the context
// Our interpreter of the float model; the full build alone has it.
Contender float_contender(const std::filesystem::path& model, const BenchData& data,
                          const Context& context);

// onnxruntime in a Python process. Throws kUnsupported without Python or onnxruntime.
class OnnxRuntime {
 public:
  OnnxRuntime(std::filesystem::path model, const BenchData& data, const Context& context);
  ~OnnxRuntime();
  OnnxRuntime(const OnnxRuntime&) = delete;
  OnnxRuntime& operator=(const OnnxRuntime&) = delete;
  Contender fp32() const;
  // Makes the int8 models that the cache does not hold, and takes the fastest.
  Contender int8() const;

 private:
  Contender start(const std::string& name, const std::filesystem::path& model) const;
  std::vector<std::string> command(const std::string& script) const;

  std::filesystem::path model_, folder_;
  const Context& context_;
};

}  // namespace repquant::cli
