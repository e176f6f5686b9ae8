#pragma once
// One stream of execution of a Program: arena and per-thread scratch. One caller at a time; any
// number of sessions may share a program and a pool.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "repquant/core/progress.h"
#include "repquant/core/tensor.h"
#include "repquant/core/thread_pool.h"
#include "repquant/runtime/program.h"

namespace repquant {

struct SessionOptions {
  int64_t max_batch = 1;
  ThreadPool* pool = nullptr;  // nullptr: everything on the caller. Not owned, outlives the session
  // Steps of less estimated work stay on the caller; negative: what suits the pool.
  double parallel_from_ns = -1;
  const StopFlag* stop = nullptr;    // raised, from any thread: the run ends before its next step
};

struct StepTime {
  int step = 0;  // index of plan().steps
  int64_t nanoseconds = 0;
};

// Called after each step with its output, before the buffer is used again.
using StepTap = std::function<void(const Step& step, int out_index, ConstTensorView value)>;

class Session {
 public:
  // Throws kInvalidArgument (max_batch < 1), kResourceExhausted (the program's memory cap, or what
  // the system gives).
  explicit Session(std::shared_ptr<const Program> program, const SessionOptions& options = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // `in` and `out` follow plan().inputs and plan().outputs: f32 [N, item shape...], one N <=
  // max_batch for all; they must not overlap one another. Results do not depend on threads, on N,
  // or on the session. The float state of the caller does not matter and is left as it was. Throws
  // kInvalidArgument for wrong views, Interrupted when the stop flag is raised: the outputs are
  // unspecified, the session stays usable. No allocation but for exceptions.
  void run(std::span<const ConstTensorView> in, std::span<const TensorView> out);
  void run_tapped(std::span<const ConstTensorView> in, std::span<const TensorView> out,
                  const StepTap& tap);
  // Same bits; `times` is overwritten with one row a step.
  void run_profiled(std::span<const ConstTensorView> in, std::span<const TensorView> out,
                    std::vector<StepTime>& times);

  const Program& program() const { return *program_; }
  // NaN and infinities seen in the inputs of all runs so far.
  int64_t non_finite_inputs() const { return non_finite_inputs_; }

 private:
  struct Piece;
  void execute(std::span<const ConstTensorView> in, std::span<const TensorView> out,
               const StepTap* tap, std::vector<StepTime>* times);
  int64_t check_views(std::span<const ConstTensorView> in, std::span<const TensorView> out) const;
  void bind(std::span<const ConstTensorView> in, std::span<const TensorView> out, int64_t batch);
  void run_step(size_t step, int64_t batch);
  void copy_outputs(std::span<const TensorView> out, int64_t batch) const;

  std::shared_ptr<const Program> program_;
  ThreadPool* pool_;
  int64_t max_batch_;
  double parallel_from_ns_;
  double slowdown_ = 1.0;
  const StopFlag* stop_;
  int64_t non_finite_inputs_ = 0;
  uint64_t regions_ = 0;  // steps run so far
  size_t scratch_stride_ = 0;
  std::unique_ptr<std::byte, void (*)(std::byte*)> arena_, scratch_;
  std::vector<std::byte*> buffers_;  // by buffer index, for the current run
  std::vector<Shape> shapes_;        // [batch, item shape...] by buffer index, for taps
};

}  // namespace repquant
