// conv: windows of an image [H, W, C] as rows of a product, which reads them where they lie. Rows
// of the image are copied with the padding around them, as many as stay in the first cache.
#include <fmt/format.h>

#include <algorithm>

#include "repquant/core/plan_window.h"
#include "repquant/runtime/kernels/dot.h"
#include "repquant/runtime/steps/product.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kCopiedBytes = 24 << 10;  // of the image
constexpr int64_t kMostBytes = 1 << 30;     // of the rows under one row of windows

GemmI8Shape shape_of(const Plan& plan, const Step& step) {
  const Window window = Window::of(step);
  const Shape& image = input_buffer(plan, step, 0).item_shape;
  expect(image.size() == 3, step, "items [H, W, C]", to_string(image));
  return {.n = channels_of(output_buffer(plan, step)),
          .k = window.height * window.width * image[2],
          .lines = window.dilation_x == 1 ? window.height : window.height * window.width};
}

// Units are rows of the output.
class ConvStep final : public StepKernel {
 public:
  ConvStep(const Plan& plan, const Step& step, Isa isa)
      : product_(plan, step, shape_of(plan, step), isa), window_(Window::of(step)) {
    const Shape& image = input_buffer(plan, step, 0).item_shape;
    height_ = image[0], width_ = image[1], channels_ = image[2];
    rows_ = window_.rows(height_), columns_ = window_.columns(width_);
    expect(items_of(output_buffer(plan, step)) == rows_ * columns_ * product_.shape().n, step,
           fmt::format("an output of [{}, {}, {}]", rows_, columns_, product_.shape().n),
           to_string(output_buffer(plan, step).item_shape));
    fill_ = static_cast<uint8_t>(plan.integer(step, "za"));
    padded_ = window_.pads();
    plan_copies(step);
    write_offsets();
  }

  std::string_view name() const override { return product_.name(); }
  int64_t units() const override { return rows_; }
  double ns_per_unit() const override {
    return product_.ns_per_row() * static_cast<double>(columns_);
  }
  size_t scratch_bytes() const override {
    return copy_bytes_ + sum_bytes_ + product_.scratch_bytes();
  }
  size_t packed_bytes() const override { return product_.packed_bytes() + offsets_.size() * 4; }
  std::vector<int> in_place() const override {
    return product_.has_residual() ? std::vector<int>{1} : std::vector<int>{};
  }

  void run(const StepIo& io, int64_t begin, int64_t end,
           std::byte* scratch) const noexcept override {
    const auto* in = reinterpret_cast<const uint8_t*>(io.in[0]);
    for (int64_t unit = begin; unit < end;) {
      const int64_t row = unit % rows_;
      const int64_t rows = std::min({end - unit, rows_ - row, block_rows_});
      const uint8_t* image = in + unit / rows_ * height_ * width_ * channels_;
      GemmI8Args args = product_.args(io, unit * columns_, rows * columns_);
      args.quad_offsets = offsets_.data();
      args.columns = columns_;
      args.stride_x = window_.stride_x * channels_;
      args.stride_y = window_.stride_y * line_bytes_;
      args.scratch = scratch + copy_bytes_ + sum_bytes_;
      if (padded_) {
        copy_rows(image, row * window_.stride_y - window_.top, rows_under(rows),
                  reinterpret_cast<uint8_t*>(scratch));
        args.a = reinterpret_cast<const uint8_t*>(scratch);
      } else {
        args.a = image + row * args.stride_y;
      }
      if (shares_pixels())
        args.sums = sum_windows(args.a, rows, reinterpret_cast<int32_t*>(scratch + copy_bytes_));
      product_.run(args);
      unit += rows;
    }
  }

 private:
  // Rows of the image under so many rows of windows.
  int64_t rows_under(int64_t rows) const {
    return (rows - 1) * window_.stride_y + (window_.height - 1) * window_.dilation_y + 1;
  }

  // Whether windows share so many pixels that sums of pixels come first; else the product sums
  // lines.
  bool shares_pixels() const {
    return product_.needs_sums() && window_.stride_x * window_.stride_y < window_.height;
  }

  void plan_copies(const Step& step) {
    const int64_t pixels =
        (columns_ - 1) * window_.stride_x + (window_.width - 1) * window_.dilation_x + 1;
    int64_t least = 0;
    if (__builtin_mul_overflow(padded_ ? pixels : width_, channels_, &line_bytes_) ||
        __builtin_mul_overflow(line_bytes_, rows_under(1), &least) || least > kMostBytes) {
      unsupported_step(step, "more",
                       fmt::format("at most {} bytes under a row of windows", kMostBytes));
    }
    block_rows_ = rows_;
    if (!padded_ && !shares_pixels()) return;
    while (block_rows_ > 1 && rows_under(block_rows_) * line_bytes_ > kCopiedBytes)
      block_rows_ = (block_rows_ + 1) / 2;
    const int64_t copied = rows_under(block_rows_) * line_bytes_;
    if (padded_) copy_bytes_ = static_cast<size_t>(round_up(copied + 64, 64));
    if (shares_pixels()) {
      const int64_t sums = block_rows_ * columns_ + copied / channels_;
      sum_bytes_ = static_cast<size_t>(round_up(sums * 4, 64));
    }
  }

  void write_offsets() {
    const GemmI8Shape& shape = product_.shape();
    std::vector<int64_t> lines;
    for (int64_t l = 0; l < shape.lines; ++l) {
      const int64_t across = shape.lines / window_.height;
      lines.push_back(l / across * window_.dilation_y * line_bytes_ +
                      l % across * window_.dilation_x * channels_);
    }
    offsets_.resize(static_cast<size_t>(quad_count(shape)));
    write_quad_offsets(shape, lines.data(), offsets_.data());
  }

  // sum_k (a - za) of each window in so many rows of them, from the sums of the pixels they share.
  const int32_t* sum_windows(const uint8_t* a, int64_t rows, int32_t* sums) const noexcept {
    const int64_t across = line_bytes_ / channels_;
    int32_t* pixels = sums + block_rows_ * columns_;
    product_.sum_pixels(a, channels_, rows_under(rows) * across, pixels);
    for (int64_t y = 0; y < rows; ++y) {
      int32_t* __restrict to = sums + y * columns_;
      std::memset(to, 0, static_cast<size_t>(columns_) * 4);
      for (int64_t tap = 0; tap < window_.height * window_.width; ++tap) {
        const int64_t row = y * window_.stride_y + tap / window_.width * window_.dilation_y;
        const int32_t* __restrict from =
            pixels + row * across + tap % window_.width * window_.dilation_x;
        if (window_.stride_x == 1) {
          for (int64_t x = 0; x < columns_; ++x) to[x] += from[x];
        } else {
          for (int64_t x = 0; x < columns_; ++x) to[x] += from[x * window_.stride_x];
        }
      }
    }
    return sums;
  }

  // Rows [top, top + rows) of the image, with what lies around it.
  void copy_rows(const uint8_t* image, int64_t top, int64_t rows, uint8_t* to) const noexcept {
    const int64_t left = std::min(window_.left * channels_, line_bytes_);
    const int64_t middle = std::min(width_ * channels_, line_bytes_ - left);
    for (int64_t y = top; y < top + rows; ++y, to += line_bytes_) {
      if (y < 0 || y >= height_) {
        std::memset(to, fill_, static_cast<size_t>(line_bytes_));
        continue;
      }
      std::memset(to, fill_, static_cast<size_t>(left));
      std::memcpy(to + left, image + y * width_ * channels_, static_cast<size_t>(middle));
      std::memset(to + left + middle, fill_, static_cast<size_t>(line_bytes_ - left - middle));
    }
  }

  Product product_;
  Window window_;
  int64_t height_ = 0, width_ = 0, channels_ = 0;
  int64_t rows_ = 0, columns_ = 0;  // of the output
  uint8_t fill_ = 0;
  bool padded_ = false;
  int64_t line_bytes_ = 0;  // of a row of the image, as it is or copied
  int64_t block_rows_ = 1;  // of windows, for which rows are copied at a time
  size_t copy_bytes_ = 0, sum_bytes_ = 0;
  std::vector<int32_t> offsets_;
};

}  // namespace

std::unique_ptr<StepKernel> make_conv(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<ConvStep>(plan, step, isa);
}

}  // namespace repquant::runtime
