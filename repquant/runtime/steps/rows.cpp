// softmax, l2_norm, matmul, copy_rows: steps in f32 (copy_rows: codes, too) that work row by row.
#include <fmt/format.h>

#include <algorithm>

#include "repquant/runtime/kernels/matmul_f32/matmul_f32.h"
#include "repquant/runtime/kernels/softmax/softmax.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

void expect_real(const Plan& plan, const Step& step) {
  for (size_t i = 0; i < step.in.size(); ++i) {
    const DType type = input_buffer(plan, step, i).dtype;
    expect(type == DType::kF32, step, "inputs of F32", std::string(name_of(type)));
  }
  const DType type = output_buffer(plan, step).dtype;
  expect(type == DType::kF32, step, "an output of F32", std::string(name_of(type)));
}

// softmax and l2_norm. Units are rows.
class RowStep final : public StepKernel {
 public:
  RowStep(const Plan& plan, const Step& step, Isa isa) : row_(select_row(softmax_kernels(), isa)) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    expect_real(plan, step);
    expect(in.item_shape == out.item_shape, step, "an output of " + to_string(in.item_shape),
           to_string(out.item_shape));
    const bool softmax = step.op == "softmax";
    kernel_ = softmax ? row_.softmax : row_.l2_norm;
    args_.channels = channels_of(in);
    if (!softmax) {
      args_.eps = scalar(plan, step, "eps");
      const int64_t width = plan.integer(step, "width");
      expect(width >= 1 && args_.channels % width == 0, step,
             fmt::format("a width that divides {}", args_.channels), std::to_string(width));
      args_.channels = width;
    }
    rows_ = items_of(in) / args_.channels;
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return rows_; }
  double ns_per_unit() const override { return 1.0 * static_cast<double>(args_.channels) + 20.0; }
  std::vector<int> in_place() const override { return {0}; }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    SoftmaxArgs args = args_;
    args.x = reinterpret_cast<const float*>(io.in[0]) + begin * args.channels;
    args.out = reinterpret_cast<float*>(io.out) + begin * args.channels;
    args.rows = end - begin;
    kernel_(args);
  }

 private:
  const SoftmaxKernel& row_;
  void (*kernel_)(const SoftmaxArgs&) noexcept = nullptr;
  SoftmaxArgs args_;
  int64_t rows_ = 0;
};

// Units are rows of the result.
class MatmulStep final : public StepKernel {
 public:
  MatmulStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(matmul_f32_kernels(), isa)) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    expect_real(plan, step);
    args_.depth = channels_of(in), args_.columns = channels_of(out);
    rows_ = rows_of(out);
    expect(rows_ == rows_of(in), step, fmt::format("an output of {} rows", rows_of(in)),
           to_string(out.item_shape));
    if (step.in.size() == 1) {
      args_.w = floats(plan, step, "weight", args_.depth * args_.columns);
      if (plan.find_tensor(step, "b") != nullptr)
        args_.bias = floats(plan, step, "b", args_.columns);
      return;
    }
    const Buffer& right = input_buffer(plan, step, 1);
    expect(in.item_shape.size() >= 2 && right.item_shape.size() == in.item_shape.size() &&
               channels_of(right) == args_.columns &&
               right.item_shape[right.item_shape.size() - 2] == args_.depth,
           step, fmt::format("a second operand [.., {}, {}]", args_.depth, args_.columns),
           to_string(right.item_shape));
    height_ = in.item_shape[in.item_shape.size() - 2];
    expect(items_of(right) == rows_ / height_ * args_.depth * args_.columns, step,
           "equal leading axes", to_string(right.item_shape));
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return rows_; }
  int64_t grain() const override { return height_ == 0 ? 6 : 1; }
  double ns_per_unit() const override {
    return 0.05 * static_cast<double>(args_.depth * args_.columns) + 5.0;
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    while (begin < end) {
      MatmulF32Args args = args_;
      int64_t next = end;
      if (height_ != 0) {  // rows of one right operand at a time
        const int64_t matrix = begin / height_;
        next = std::min(end, (matrix + 1) * height_);
        args.w = reinterpret_cast<const float*>(io.in[1]) + matrix * args.depth * args.columns;
      }
      args.x = reinterpret_cast<const float*>(io.in[0]) + begin * args.depth;
      args.out = reinterpret_cast<float*>(io.out) + begin * args.columns;
      args.rows = next - begin;
      row_.run(args);
      begin = next;
    }
  }

 private:
  const MatmulF32Kernel& row_;
  MatmulF32Args args_;
  int64_t rows_ = 0, height_ = 0;  // height: rows to one right operand; 0: constant for all
};

// Units are rows of the result.
class CopyRowsStep final : public StepKernel {
 public:
  CopyRowsStep(const Plan& plan, const Step& step) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    const int64_t width = plan.integer(step, "width");
    expect(in.dtype == out.dtype && width >= 1 && items_of(in) % width == 0 &&
               items_of(out) % width == 0,
           step, fmt::format("one type, rows of {} elements", width), to_string(out.item_shape));
    in_rows_ = items_of(in) / width, out_rows_ = items_of(out) / width;
    bytes_ = width * static_cast<int64_t>(size_of(in.dtype));
    index_ = integers(plan, step, "index", out_rows_);
    for (int64_t i = 0; i < out_rows_; ++i) {
      expect(0 <= index_[i] && index_[i] < in_rows_, step,
             fmt::format("indices below {}", in_rows_), std::to_string(index_[i]));
    }
  }
  std::string_view name() const override { return "copy_rows/copy"; }
  int64_t units() const override { return out_rows_; }
  double ns_per_unit() const override { return 0.1 * static_cast<double>(bytes_) + 2.0; }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    for (int64_t unit = begin; unit < end;) {
      const int64_t item = unit / out_rows_, first = unit % out_rows_;
      int64_t count = 1;  // neighbours that lie behind each other are one copy
      while (unit + count < end && first + count < out_rows_ &&
             index_[first + count] == index_[first] + count)
        ++count;
      std::memcpy(io.out + unit * bytes_, io.in[0] + (item * in_rows_ + index_[first]) * bytes_,
                  static_cast<size_t>(count * bytes_));
      unit += count;
    }
  }

 private:
  const int32_t* index_ = nullptr;
  int64_t in_rows_ = 0, out_rows_ = 0, bytes_ = 0;
};

}  // namespace

std::unique_ptr<StepKernel> make_row_step(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<RowStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_matmul(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<MatmulStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_copy_rows(const Plan& plan, const Step& step, Isa) {
  return std::make_unique<CopyRowsStep>(plan, step);
}

}  // namespace repquant::runtime
