#include "repquant/runtime/program.h"

#include <algorithm>

#include <fmt/format.h>

namespace repquant {
namespace {

std::string mebibytes(uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1024.0 * 1024.0));
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

uint64_t Program::session_bytes(int64_t batch, int threads) const {
  return weight_bytes() + arena_bytes(batch) + static_cast<uint64_t>(threads) * scratch_bytes_;
}

void Program::check_memory(int64_t batch, int threads) const {
  if (batch < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("runtime: max_batch: expected at least 1, got {}", batch));
  }
  // Sizes are limited by the reader; a product that overflows is certainly too much.
  const bool overflow = memory_.item_bytes != 0 &&
                        static_cast<uint64_t>(batch) > (uint64_t{1} << 62) / memory_.item_bytes;
  const uint64_t cap = memory_cap_ == 0 ? (uint64_t{1} << 62) : memory_cap_;
  if (!overflow && session_bytes(batch, threads) <= cap) return;
  const uint64_t fixed = weight_bytes() + static_cast<uint64_t>(threads) * scratch_bytes_;
  const uint64_t fits =
      fixed < cap && memory_.item_bytes > 0 ? (cap - fixed) / memory_.item_bytes : 0;
  std::string hint = "no batch fits; raise the cap";
  if (fits >= 1) hint = fmt::format("smallest change that fits: max_batch {}", fits);
  throw Error(
      ErrorCode::kResourceExhausted,
      fmt::format(
          "runtime: memory: expected at most {}, got {} (weights {}, arena {}, scratch {})",
          mebibytes(cap),
          overflow ? "more than can be addressed" : mebibytes(session_bytes(batch, threads)),
          mebibytes(weight_bytes()), mebibytes(overflow ? 0 : arena_bytes(batch)),
          mebibytes(static_cast<uint64_t>(threads) * scratch_bytes_)),
      hint);
}

}  // namespace repquant
