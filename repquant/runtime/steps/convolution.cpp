// patches, depthwise: the windows of convolutions over codes [H, W, C].
#include <fmt/format.h>

#include <algorithm>

#include "repquant/core/plan_window.h"
#include "repquant/runtime/kernels/depthwise_i8/depthwise_i8.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kMostBytes = 1 << 30;  // of the rows under one row of windows

struct Image {
  int64_t height = 0, width = 0, channels = 0;
  Image(const Buffer& buffer, const Step& step) {
    expect(buffer.item_shape.size() == 3, step, "items [H, W, C]", to_string(buffer.item_shape));
    height = buffer.item_shape[0], width = buffer.item_shape[1], channels = buffer.item_shape[2];
  }
  int64_t size() const { return height * width * channels; }
};

// Units are rows of windows.
class PatchesStep final : public StepKernel {
 public:
  PatchesStep(const Plan& plan, const Step& step)
      : window_(Window::of(step)),
        image_(input_buffer(plan, step, 0), step),
        fill_(static_cast<uint8_t>(plan.integer(step, "fill"))) {
    rows_ = window_.rows(image_.height), columns_ = window_.columns(image_.width);
    depth_ = window_.height * window_.width * image_.channels;
    expect(items_of(output_buffer(plan, step)) == rows_ * columns_ * depth_, step,
           fmt::format("an output of {} codes", rows_ * columns_ * depth_),
           to_string(output_buffer(plan, step).item_shape));
  }
  std::string_view name() const override { return "patches/copy"; }
  int64_t units() const override { return rows_; }
  double ns_per_unit() const override {
    return 0.05 * static_cast<double>(columns_ * depth_) + 4.0 * static_cast<double>(columns_);
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    const auto* in = reinterpret_cast<const uint8_t*>(io.in[0]);
    auto* out = reinterpret_cast<uint8_t*>(io.out) + begin * columns_ * depth_;
    for (int64_t unit = begin; unit < end; ++unit) {
      const uint8_t* image = in + unit / rows_ * image_.size();
      for (int64_t ox = 0; ox < columns_; ++ox, out += depth_) window(image, unit % rows_, ox, out);
    }
  }

 private:
  // Lines are short: a call of memcpy would take longer than the copy.
  static void copy(uint8_t* to, const uint8_t* from, int64_t bytes) noexcept {
    if (bytes % 16 != 0) {
      std::memcpy(to, from, static_cast<size_t>(bytes));
      return;
    }
    for (int64_t i = 0; i < bytes; i += 16) std::memcpy(to + i, from + i, 16);
  }

  void window(const uint8_t* image, int64_t oy, int64_t ox, uint8_t* out) const noexcept {
    const int64_t left = ox * window_.stride_x - window_.left, channels = image_.channels;
    const int64_t line = window_.width * channels;
    const bool whole = left >= 0 && left + window_.width <= image_.width && window_.dilation_x == 1;
    for (int64_t ky = 0; ky < window_.height; ++ky, out += line) {
      const int64_t y = oy * window_.stride_y - window_.top + ky * window_.dilation_y;
      if (y < 0 || y >= image_.height) {
        std::memset(out, fill_, static_cast<size_t>(line));
        continue;
      }
      const uint8_t* row = image + y * image_.width * channels;
      if (whole) {
        copy(out, row + left * channels, line);
        continue;
      }
      for (int64_t kx = 0; kx < window_.width; ++kx) {
        const int64_t x = left + kx * window_.dilation_x;
        if (x < 0 || x >= image_.width) {
          std::memset(out + kx * channels, fill_, static_cast<size_t>(channels));
        } else {
          copy(out + kx * channels, row + x * channels, channels);
        }
      }
    }
  }

  Window window_;
  Image image_;
  uint8_t fill_;
  int64_t rows_ = 0, columns_ = 0, depth_ = 0;
};

// Units are rows of the output.
class DepthwiseStep final : public StepKernel {
 public:
  DepthwiseStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(depthwise_i8_kernels(), isa)) {
    const Image image(input_buffer(plan, step, 0), step);
    const Buffer& out = output_buffer(plan, step);
    args_.window = Window::of(step);
    args_.height = image.height, args_.width = image.width, args_.channels = image.channels;
    rows_ = args_.window.rows(image.height), args_.columns = args_.window.columns(image.width);
    expect(items_of(out) == rows_ * args_.columns * args_.channels, step,
           fmt::format("an output of [{}, {}, {}]", rows_, args_.columns, args_.channels),
           to_string(out.item_shape));
    to_codes_ = out.dtype == DType::kU8;
    if (to_codes_) {
      const CodeBounds bounds = code_bounds(plan, step);
      args_.m = floats(plan, step, "m", args_.channels);
      args_.zero = bounds.zero, args_.lo = bounds.lo, args_.hi = bounds.hi;
    } else {
      args_.s = floats(plan, step, "s", args_.channels);
      args_.b = floats(plan, step, "b", args_.channels);
    }
    check_rows(step);
    read_weights(plan, step);
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return rows_; }
  double ns_per_unit() const override {
    const auto taps = static_cast<double>(args_.window.height * args_.window.width);
    return 0.1 * (taps + 2) * static_cast<double>(args_.columns * args_.channels);
  }
  size_t packed_bytes() const override { return packed_.size(); }
  size_t scratch_bytes() const override { return row_.scratch_bytes(args_); }
  void run(const StepIo& io, int64_t begin, int64_t end,
           std::byte* scratch) const noexcept override {
    DepthwiseI8Args args = args_;
    args.scratch = scratch;
    const int64_t image = args.height * args.width * args.channels,
                  out = rows_ * args.columns * args.channels;
    for (int64_t unit = begin; unit < end;) {
      const int64_t item = unit / rows_;
      args.first_row = unit % rows_;
      args.rows = std::min(end - unit, rows_ - args.first_row);
      args.image = reinterpret_cast<const uint8_t*>(io.in[0]) + item * image;
      if (to_codes_) {
        args.codes = reinterpret_cast<uint8_t*>(io.out) + item * out;
      } else {
        args.out = reinterpret_cast<float*>(io.out) + item * out;
      }
      row_.run(args);
      unit += args.rows;
    }
  }

 private:
  // The rows of the image under a row of windows, with what lies around them, are copied.
  void check_rows(const Step& step) const {
    const Window& w = args_.window;
    int64_t bytes = 0;
    if (__builtin_mul_overflow(args_.width + w.left + w.right + w.stride_x, args_.channels,
                               &bytes) ||
        __builtin_mul_overflow(bytes, w.height, &bytes) || bytes > kMostBytes) {
      unsupported_step(step, "more",
                       fmt::format("at most {} bytes under a row of windows", kMostBytes));
    }
  }

  void read_weights(const Plan& plan, const Step& step) {
    const auto named = step.tensors.find("w");
    expect(named != step.tensors.end() && plan.tensors.contains(named->second), step,
           "a tensor \"w\"", "none");
    const std::vector<int8_t> w = unpack_weights(plan.tensors.at(named->second));
    const int64_t taps = args_.window.height * args_.window.width, n = args_.channels;
    expect(static_cast<int64_t>(w.size()) == taps * n, step, fmt::format("{} weights", taps * n),
           std::to_string(w.size()));
    args_.w = w.data();
    args_.c = integers(plan, step, "c", n);
    args_.zw = plan.find_tensor(step, "zw") ? integers(plan, step, "zw", n) : nullptr;
    args_.za = static_cast<int32_t>(plan.integer(step, "za"));
    packed_ = AlignedBytes(row_.packed_bytes(args_));
    row_.pack(args_, packed_.data());
    args_.packed = packed_.data();
    args_.w = nullptr;
  }

  const DepthwiseI8Kernel& row_;
  DepthwiseI8Args args_;
  AlignedBytes packed_;
  int64_t rows_ = 0;
  bool to_codes_ = false;
};

}  // namespace

std::unique_ptr<StepKernel> make_patches(const Plan& plan, const Step& step, Isa) {
  return std::make_unique<PatchesStep>(plan, step);
}

std::unique_ptr<StepKernel> make_depthwise(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<DepthwiseStep>(plan, step, isa);
}

}  // namespace repquant::runtime
