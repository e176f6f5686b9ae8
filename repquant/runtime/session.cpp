#include "repquant/runtime/session.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <new>

#include <fmt/format.h>

#include "repquant/runtime/fp_environment.h"

namespace repquant {
namespace {

constexpr size_t kAlignment = runtime::kArenaAlignment;

std::unique_ptr<std::byte, void (*)(std::byte*)> aligned_bytes(uint64_t bytes) {
  auto* data =
      static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{kAlignment}, std::nothrow));
  if (data == nullptr) {
    throw Error(ErrorCode::kResourceExhausted,
                fmt::format("runtime: memory: expected {} bytes for a session, got none", bytes),
                "use a smaller max_batch, or a memory cap");
  }
  std::memset(data, 0, bytes);  // touched now, not in the first run
  return {data, [](std::byte* p) { ::operator delete[](p, std::align_val_t{kAlignment}); }};
}

double threshold(const SessionOptions& options) {
  constexpr double kSpinning = 3'000, kSleeping = 20'000;  // a region costs about half of it
  if (options.parallel_from_ns >= 0) return options.parallel_from_ns;
  return options.pool != nullptr && !options.pool->spins() ? kSleeping : kSpinning;
}

// How many times the time of AVX512-VNNI a program of small and large steps takes, roughly.
double slowdown_of(std::string_view isa) {
  if (isa == "scalar") return 20.0;
  return isa == "avx2" ? 3.0 : isa == "avxvnni" ? 1.5 : 1.0;
}

int64_t count_non_finite(const float* x, int64_t count) {
  int64_t found = 0;
  constexpr int64_t kChunk = 4096;
  for (int64_t first = 0; first < count; first += kChunk) {
    const int64_t n = std::min(kChunk, count - first);
    int32_t here = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(x[first + i]);
      here += (bits & 0x7f800000u) == 0x7f800000u ? 1 : 0;
    }
    found += here;
  }
  return found;
}

// Checks one view against [N, item shape...]; returns N.
int64_t check_view(const char* what, const Buffer& buffer, const void* data, DType dtype,
                   std::span<const int64_t> shape, int64_t max_batch) {
  const Shape& item = buffer.item_shape;
  const bool numbers = shape.size() == 1 && item == Shape{1};  // [N] as [N, 1]
  const bool fits = dtype == buffer.dtype &&
                    (numbers || (shape.size() == item.size() + 1 &&
                                 std::equal(item.begin(), item.end(), shape.begin() + 1))) &&
                    shape[0] >= 1 && shape[0] <= max_batch && data != nullptr &&
                    reinterpret_cast<uintptr_t>(data) % size_of(dtype) == 0;
  if (fits) return shape[0];
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format(
          "runtime: {} \"{}\": expected an aligned {} [N, item], N in 1 .. {}, item {}, got {} {}",
          what, buffer.name, name_of(buffer.dtype), max_batch, to_string(item), name_of(dtype),
          to_string(shape)));
}

// The bytes of a view that passed check_view.
struct Bytes {
  const std::byte *begin, *end;
  template <class View>
  explicit Bytes(const View& view)
      : begin(static_cast<const std::byte*>(view.data)),
        end(begin + static_cast<size_t>(view.size()) * size_of(view.dtype)) {}
  bool overlaps(const Bytes& other) const { return begin < other.end && other.begin < end; }
};

}  // namespace

// What one parallel region needs, reachable through one reference so that no closure allocates.
struct Session::Piece {
  const runtime::StepKernel& kernel;
  runtime::StepIo io;
  std::byte* scratch;
  size_t stride;
  uint64_t region;
  void operator()(int64_t begin, int64_t end, int worker) const {
    const runtime::FpEnvironment environment;
    std::byte* mine = scratch + static_cast<size_t>(worker) * stride + sizeof(runtime::ScratchHead);
    runtime::ScratchHead& head = runtime::head_of(mine);
    if (head.region != region) head = {region, -1};
    kernel.run(io, begin, end, mine);
  }
};

Session::Session(std::shared_ptr<const Program> program, const SessionOptions& options)
    : program_(std::move(program)),
      pool_(options.pool),
      max_batch_(options.max_batch),
      parallel_from_ns_(threshold(options)),
      stop_(options.stop),
      arena_(nullptr, nullptr),
      scratch_(nullptr, nullptr) {
  REPQUANT_CHECK(program_ != nullptr);
  slowdown_ = slowdown_of(program_->isa());
  const int threads = pool_ == nullptr ? 1 : pool_->size();
  program_->check_memory(max_batch_, threads);
  const Plan& plan = program_->plan();
  scratch_stride_ = program_->scratch_bytes(1);
  arena_ = aligned_bytes(program_->arena_bytes(max_batch_) + runtime::kArenaTail);
  scratch_ = aligned_bytes(scratch_stride_ * static_cast<size_t>(threads));
  buffers_.assign(plan.buffers.size(), nullptr);
  for (const Buffer& buffer : plan.buffers) {
    Shape shape{1};
    shape.insert(shape.end(), buffer.item_shape.begin(), buffer.item_shape.end());
    shapes_.push_back(std::move(shape));
  }
}

Session::~Session() = default;

void Session::run(std::span<const ConstTensorView> in, std::span<const TensorView> out) {
  execute(in, out, nullptr, nullptr);
}

void Session::run_tapped(std::span<const ConstTensorView> in, std::span<const TensorView> out,
                         const StepTap& tap) {
  execute(in, out, &tap, nullptr);
}

void Session::run_profiled(std::span<const ConstTensorView> in, std::span<const TensorView> out,
                           std::vector<StepTime>& times) {
  times.clear();
  times.reserve(program_->plan().steps.size());
  execute(in, out, nullptr, &times);
}

int64_t Session::check_views(std::span<const ConstTensorView> in,
                             std::span<const TensorView> out) const {
  const Plan& plan = program_->plan();
  if (in.size() != plan.inputs.size() || out.size() != plan.outputs.size()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("runtime: run: expected {} inputs and {} outputs, got {} and {}",
                            plan.inputs.size(), plan.outputs.size(), in.size(), out.size()));
  }
  int64_t batch = 0;
  const auto agree = [&batch](int64_t n, const Buffer& buffer) {
    if (batch != 0 && n != batch) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("runtime: \"{}\": expected a batch of {}, got {}", buffer.name, batch, n));
    }
    batch = n;
  };
  for (size_t i = 0; i < in.size(); ++i) {
    const Buffer& buffer = plan.buffers[static_cast<size_t>(plan.inputs[i])];
    agree(check_view("input", buffer, in[i].data, in[i].dtype, in[i].shape, max_batch_), buffer);
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const Buffer& buffer = plan.buffers[static_cast<size_t>(plan.outputs[i])];
    agree(check_view("output", buffer, out[i].data, out[i].dtype, out[i].shape, max_batch_),
          buffer);
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const Bytes written(out[i]);
    bool shared = false;
    for (const ConstTensorView& view : in) shared |= written.overlaps(Bytes(view));
    for (size_t k = 0; k < i; ++k) shared |= written.overlaps(Bytes(out[k]));
    if (!shared) continue;
    const Buffer& buffer = plan.buffers[static_cast<size_t>(plan.outputs[i])];
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("runtime: output \"{}\": expected memory of its own, got memory of "
                            "another view",
                            buffer.name));
  }
  return batch;
}

void Session::bind(std::span<const ConstTensorView> in, std::span<const TensorView> out,
                   int64_t batch) {
  const Plan& plan = program_->plan();
  for (size_t b = 0; b < buffers_.size(); ++b) {
    const auto& place = program_->memory().buffers[b];
    buffers_[b] =
        place.external ? nullptr : arena_.get() + place.offset * static_cast<uint64_t>(batch);
    shapes_[b][0] = batch;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    std::byte*& buffer = buffers_[static_cast<size_t>(plan.outputs[i])];
    if (buffer == nullptr) buffer = static_cast<std::byte*>(out[i].data);
  }
  for (size_t i = 0; i < in.size(); ++i) {  // never written: no step has a plan input as output
    const auto* data = static_cast<const std::byte*>(in[i].data);
    buffers_[static_cast<size_t>(plan.inputs[i])] = const_cast<std::byte*>(data);
    if (in[i].dtype == DType::kF32) {
      non_finite_inputs_ += count_non_finite(static_cast<const float*>(in[i].data), in[i].size());
    }
  }
}

void Session::run_step(size_t step, int64_t batch) {
  const Step& description = program_->plan().steps[step];
  Piece piece{program_->kernel(step), {}, scratch_.get(), scratch_stride_, ++regions_};
  for (size_t i = 0; i < description.in.size(); ++i) {
    piece.io.in[i] = buffers_[static_cast<size_t>(description.in[i])];
  }
  piece.io.out = buffers_[static_cast<size_t>(description.out[0])];
  const int64_t units = piece.kernel.units() * batch;
  if (pool_ == nullptr ||
      static_cast<double>(units) * piece.kernel.ns_per_unit() * slowdown_ < parallel_from_ns_) {
    piece(0, units, 0);
    return;
  }
  pool_->parallel_for(units, piece.kernel.grain(), std::ref(piece));
}

// Outputs that are plan inputs, or named twice, were not written in place.
void Session::copy_outputs(std::span<const TensorView> out, int64_t batch) const {
  const Plan& plan = program_->plan();
  for (size_t i = 0; i < out.size(); ++i) {
    const auto index = static_cast<size_t>(plan.outputs[i]);
    if (buffers_[index] == out[i].data) continue;
    std::memcpy(out[i].data, buffers_[index],
                program_->memory().buffers[index].bytes * static_cast<uint64_t>(batch));
  }
}

void Session::execute(std::span<const ConstTensorView> in, std::span<const TensorView> out,
                      const StepTap* tap, std::vector<StepTime>* times) {
  using Clock = std::chrono::steady_clock;
  const runtime::FpEnvironment environment;
  const int64_t batch = check_views(in, out);
  bind(in, out, batch);
  const Plan& plan = program_->plan();
  for (size_t s = 0; s < plan.steps.size(); ++s) {
    if (stop_ != nullptr && stop_->raised()) {
      throw Interrupted(
          fmt::format("runtime: run: interrupted after {} of {} steps", s, plan.steps.size()));
    }
    const Clock::time_point start = times == nullptr ? Clock::time_point() : Clock::now();
    run_step(s, batch);
    if (times != nullptr) {
      const auto spent = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start);
      times->push_back({static_cast<int>(s), spent.count()});
    }
    if (tap == nullptr) continue;
    const auto index = static_cast<size_t>(plan.steps[s].out[0]);
    (*tap)(plan.steps[s], 0,
           ConstTensorView{buffers_[index], plan.buffers[index].dtype, shapes_[index]});
  }
  copy_outputs(out, batch);
}

}  // namespace repquant
