#pragma once
// The immutable half of the runtime: a verified plan, one kernel chosen per step, weights repacked
// for it, and the memory plan. Shared by any number of sessions.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "repquant/core/artifact.h"
#include "repquant/core/plan.h"
#include "repquant/runtime/memory_plan.h"
#include "repquant/runtime/step_kernel.h"

namespace repquant {

struct LoadOptions {
  std::string isa = "auto";  // or a name of runtime::available_isas()
  uint64_t memory_cap = 0;   // bytes of weights, arena and scratch; 0: no cap
  int64_t max_batch = 1;     // the batch that `memory_cap` is checked for at open
  ArtifactLimits limits;
};

class Program {
 public:
  // Reads, verifies, chooses kernels, repacks. Throws kNotFound, kCorruptFile, kUnsupported (an op
  // or form without a kernel, naming what is supported), kResourceExhausted (memory cap).
  static std::shared_ptr<const Program> open(const std::filesystem::path& path,
                                             const LoadOptions& options = {});
  static std::shared_ptr<const Program> from_plan(Plan plan, const LoadOptions& options = {});

  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const Plan& plan() const { return plan_; }
  std::string_view isa() const;
  // The chosen row, "gemm_i8/scalar"; `step` is an index of plan().steps.
  std::string_view kernel_for(size_t step) const;
  // Bytes of activations for `batch` items, and everything a session with `threads` needs.
  uint64_t arena_bytes(int64_t batch) const;
  uint64_t weight_bytes() const;
  uint64_t scratch_bytes(int threads) const;
  uint64_t session_bytes(int64_t batch, int threads) const;
  // Throws kResourceExhausted when the cap given at open does not allow such a session; the hint is
  // the smallest change that fits.
  void check_memory(int64_t batch, int threads) const;

  // For Session.
  const runtime::StepKernel& kernel(size_t step) const { return *kernels_[step]; }
  const runtime::MemoryPlan& memory() const { return memory_; }

 private:
  Program(Plan plan, const LoadOptions& options);
  std::string what_fits(int64_t batch, int threads, uint64_t cap) const;
  Plan plan_;
  uint64_t memory_cap_ = 0;
  runtime::Isa isa_;
  std::vector<std::unique_ptr<runtime::StepKernel>> kernels_;
  runtime::MemoryPlan memory_;
  size_t scratch_bytes_ = 0;
};

}  // namespace repquant
