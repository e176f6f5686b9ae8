#include "repquant/runtime/program.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace repquant {
namespace {

// Rounded up, so that a cap of this size is enough.
std::string mebibytes(uint64_t bytes) {
  return fmt::format("{:.1f} MiB", std::ceil(static_cast<double>(bytes) / (102.4 * 1024.0)) / 10.0);
}

}  // namespace

std::shared_ptr<const Program> Program::open(const std::filesystem::path& path,
                                             const LoadOptions& options) {
  Plan plan = read_artifact(path, options.limits);
  return from_plan(std::move(plan), options);
}

std::shared_ptr<const Program> Program::from_plan(Plan plan, const LoadOptions& options) {
  return std::shared_ptr<const Program>(new Program(std::move(plan), options));
}

Program::Program(Plan plan, const LoadOptions& options)
    : plan_(std::move(plan)),
      memory_cap_(options.memory_cap),
      isa_(runtime::parse_isa(options.isa)) {
  verify_plan(plan_);
  std::vector<std::vector<int>> in_place;
  kernels_.reserve(plan_.steps.size());
  for (const Step& step : plan_.steps) {
    if (step.in.size() > runtime::StepIo::kMaxInputs) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("runtime: step \"{}\": expected at most {} inputs, got {}", step.name,
                              runtime::StepIo::kMaxInputs, step.in.size()));
    }
    kernels_.push_back(runtime::make_step_kernel(plan_, step, isa_));
    in_place.push_back(kernels_.back()->in_place());
    scratch_bytes_ = std::max(scratch_bytes_, kernels_.back()->scratch_bytes());
  }
  memory_ = runtime::plan_memory(plan_, in_place);
  check_memory(options.max_batch, 1);
}

std::string_view Program::isa() const { return runtime::isa_name(isa_); }

std::string_view Program::kernel_for(size_t step) const { return kernels_.at(step)->name(); }

uint64_t Program::arena_bytes(int64_t batch) const {
  return memory_.item_bytes * static_cast<uint64_t>(batch);
}

uint64_t Program::weight_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : plan_.tensors) bytes += tensor.data.bytes();
  for (const auto& kernel : kernels_) bytes += kernel->packed_bytes();
  return bytes;
}

uint64_t Program::scratch_bytes(int threads) const {
  constexpr uint64_t kUnit = runtime::kArenaAlignment;
  const uint64_t one = sizeof(runtime::ScratchHead) +
                       (scratch_bytes_ + runtime::kArenaTail + kUnit - 1) / kUnit * kUnit;
  return static_cast<uint64_t>(threads) * one;
}

uint64_t Program::session_bytes(int64_t batch, int threads) const {
  return weight_bytes() + arena_bytes(batch) + runtime::kArenaTail + scratch_bytes(threads);
}

// Fewer items, else fewer threads, else both.
std::string Program::what_fits(int64_t batch, int threads, uint64_t cap) const {
  const auto items = [&](int with) {
    const uint64_t fixed = session_bytes(0, with);
    return fixed < cap && memory_.item_bytes > 0 ? (cap - fixed) / memory_.item_bytes : 0;
  };
  const auto wanted = static_cast<uint64_t>(batch);
  if (items(threads) >= 1)
    return fmt::format("smallest change that fits: max_batch {}", items(threads));
  for (int fewer = threads - 1; fewer >= 1; --fewer) {
    if (items(fewer) >= wanted) return fmt::format("smallest change that fits: threads {}", fewer);
  }
  if (items(1) >= 1)
    return fmt::format("smallest change that fits: max_batch {} and threads 1", items(1));
  return fmt::format("no batch fits; raise the cap to at least {}", mebibytes(session_bytes(1, 1)));
}

void Program::check_memory(int64_t batch, int threads) const {
  if (batch < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("runtime: max_batch: expected at least 1, got {}", batch));
  }
  // Sizes are limited by the reader; a product that overflows is certainly too much.
  constexpr uint64_t kLargest = uint64_t{1} << 62;
  const bool overflow =
      memory_.item_bytes != 0 && static_cast<uint64_t>(batch) > kLargest / memory_.item_bytes;
  const uint64_t cap = memory_cap_ == 0 ? kLargest : memory_cap_;
  if (!overflow && session_bytes(batch, threads) <= cap) return;
  throw Error(
      ErrorCode::kResourceExhausted,
      fmt::format(
          "runtime: memory: expected at most {}, got a need of {} (weights {}, arena {}, scratch {})",
          mebibytes(cap),
          overflow ? "more than can be addressed" : mebibytes(session_bytes(batch, threads)),
          mebibytes(weight_bytes()),
          overflow ? "beyond that" : mebibytes(arena_bytes(batch) + runtime::kArenaTail),
          mebibytes(scratch_bytes(threads))),
      what_fits(batch, threads, cap));
}

}  // namespace repquant
