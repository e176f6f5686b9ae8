// quantize, quantize_log, table, dequantize, add, mul.
#include <fmt/format.h>

#include <algorithm>

#include "repquant/core/format/uniform.h"
#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/kernels/elementwise/elementwise.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

const ElementwiseKernel& row_for(Isa isa) { return select_row(elementwise_kernels(), isa); }

void expect_types(const Plan& plan, const Step& step, DType in, DType out) {
  const Buffer &from = input_buffer(plan, step, 0), &to = output_buffer(plan, step);
  expect(from.dtype == in, step, fmt::format("input of {}", name_of(in)),
         std::string(name_of(from.dtype)));
  expect(to.dtype == out, step, fmt::format("output of {}", name_of(out)),
         std::string(name_of(to.dtype)));
  expect(items_of(from) == items_of(to), step,
         fmt::format("an output of {} elements", items_of(from)), std::to_string(items_of(to)));
}

// Units are elements.
class ElementStep : public StepKernel {
 public:
  ElementStep(const Plan& plan, const Step& step, Isa isa, double cost)
      : row_(row_for(isa)), elements_(items_of(output_buffer(plan, step))), cost_(cost) {}
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return elements_; }
  int64_t grain() const override { return 1024; }
  double ns_per_unit() const override { return cost_; }

 protected:
  static const float* f32(const std::byte* at, int64_t index) {
    return reinterpret_cast<const float*>(at) + index;
  }
  static float* f32(std::byte* at, int64_t index) { return reinterpret_cast<float*>(at) + index; }
  static const uint8_t* u8(const std::byte* at, int64_t index) {
    return reinterpret_cast<const uint8_t*>(at) + index;
  }
  static uint8_t* u8(std::byte* at, int64_t index) {
    return reinterpret_cast<uint8_t*>(at) + index;
  }
  const ElementwiseKernel& row_;

 private:
  int64_t elements_;
  double cost_;
};

class QuantizeStep final : public ElementStep {
 public:
  QuantizeStep(const Plan& plan, const Step& step, Isa isa) : ElementStep(plan, step, isa, 0.05) {
    expect_types(plan, step, DType::kF32, DType::kU8);
    const CodeBounds bounds = code_bounds(plan, step);
    args_.inv = scalar(plan, step, "inv");
    args_.zero = bounds.zero, args_.lo = bounds.lo, args_.hi = bounds.hi;
    if (!step.strings.contains("kind")) return;
    activation_ = &select_row(activation_kernels(), isa);
    function_ = activation_args(plan, step);
  }
  size_t scratch_bytes() const override {
    return activation_ == nullptr ? 0 : static_cast<size_t>(kPiece) * sizeof(float);
  }
  void run(const StepIo& io, int64_t begin, int64_t end,
           std::byte* scratch) const noexcept override {
    QuantizeArgs args = args_;
    args.x = f32(io.in[0], begin), args.codes = u8(io.out, begin), args.count = end - begin;
    if (activation_ == nullptr) return row_.quantize(args);
    for (int64_t first = begin; first < end; first += kPiece) {
      const int64_t count = std::min(kPiece, end - first);
      ActivationArgs function = function_;
      function.x = f32(io.in[0], first), function.out = f32(scratch, 0), function.count = count;
      activation_->run(function);
      args.x = function.out, args.codes = u8(io.out, first), args.count = count;
      row_.quantize(args);
    }
  }

 private:
  static constexpr int64_t kPiece = 2048;  // stays in the first cache
  QuantizeArgs args_;
  const ActivationKernel* activation_ = nullptr;
  ActivationArgs function_;
};

class QuantizeLogStep final : public ElementStep {
 public:
  QuantizeLogStep(const Plan& plan, const Step& step, Isa isa) : ElementStep(plan, step, isa, 0.9) {
    expect_types(plan, step, DType::kF32, DType::kU8);
    args_.levels = plan.tensor(step, "thr").size();
    expect(1 <= args_.levels && args_.levels <= 255, step, "1 to 255 thresholds",
           std::to_string(args_.levels));
    args_.thresholds = floats(plan, step, "thr", args_.levels);
    args_.fit = fit_log(args_.thresholds, args_.levels);
    args_.shift = scalar(plan, step, "shift");
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    QuantizeLogArgs args = args_;
    args.x = f32(io.in[0], begin), args.codes = u8(io.out, begin), args.count = end - begin;
    row_.quantize_log(args);
  }

 private:
  QuantizeLogArgs args_;
};

class TableStep final : public ElementStep {
 public:
  TableStep(const Plan& plan, const Step& step, Isa isa) : ElementStep(plan, step, isa, 0.02) {
    expect_types(plan, step, DType::kU8, DType::kU8);
    table_ = code_table(plan, step);
  }
  std::vector<int> in_place() const override { return {0}; }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    row_.table({u8(io.in[0], begin), u8(io.out, begin), end - begin, table_});
  }

 private:
  const uint8_t* table_ = nullptr;
};

class DequantizeStep final : public ElementStep {
 public:
  DequantizeStep(const Plan& plan, const Step& step, Isa isa) : ElementStep(plan, step, isa, 0.05) {
    expect_types(plan, step, DType::kU8, DType::kF32);
    scale_ = scalar(plan, step, "s");
    const int64_t zero = plan.integer(step, "zero");
    expect(-kMaxZeroPoint <= zero && zero <= kMaxZeroPoint, step,
           fmt::format("a zero point within {}", kMaxZeroPoint), std::to_string(zero));
    zero_ = static_cast<int32_t>(zero);
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    row_.dequantize({u8(io.in[0], begin), f32(io.out, begin), end - begin, scale_, zero_});
  }

 private:
  float scale_ = 1;
  int32_t zero_ = 0;
};

// add and mul; units are rows.
class BinaryStep final : public StepKernel {
 public:
  BinaryStep(const Plan& plan, const Step& step, Isa isa)
      : row_(row_for(isa)), multiply_(step.op == "mul") {
    expect_types(plan, step, DType::kF32, DType::kF32);
    const Buffer& out = output_buffer(plan, step);
    channels_ = channels_of(out), rows_ = rows_of(out);
    if (step.in.size() == 1) {
      read_constant(plan, step);
      return;
    }
    expect(!multiply_ && step.in.size() == 2, step,
           "one input and a constant, or for add two inputs",
           fmt::format("{} inputs", step.in.size()));
    const Buffer& other = input_buffer(plan, step, 1);
    expect(other.dtype == DType::kF32 && items_of(other) == items_of(out), step,
           fmt::format("a second input of {} F32", items_of(out)), to_string(other.item_shape));
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return rows_; }
  double ns_per_unit() const override { return 0.2 * static_cast<double>(channels_); }
  std::vector<int> in_place() const override {
    return constant_ != nullptr ? std::vector<int>{0} : std::vector<int>{0, 1};
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    const auto apply = multiply_ ? row_.mul : row_.add;
    const float* a = reinterpret_cast<const float*>(io.in[0]);
    float* out = reinterpret_cast<float*>(io.out);
    if (constant_ == nullptr) {
      const float* b = reinterpret_cast<const float*>(io.in[1]);
      const int64_t at = begin * channels_;
      apply({a + at, b + at, out + at, (end - begin) * channels_});
      return;
    }
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * channels_;
      apply({a + at, constant_ + row % constant_rows_ * channels_, out + at, channels_});
    }
  }

 private:
  void read_constant(const Plan& plan, const Step& step) {
    const Tensor& tensor = plan.tensor(step, "const");
    const int64_t all = rows_ * channels_;
    expect(tensor.dtype() == DType::kF32 && (tensor.size() == all || tensor.size() == channels_),
           step, fmt::format("tensor \"const\" of {} or {} F32", all, channels_),
           fmt::format("{} {}", tensor.size(), name_of(tensor.dtype())));
    constant_ = tensor.as<float>().data();
    constant_rows_ = tensor.size() == channels_ ? 1 : rows_;
  }

  const ElementwiseKernel& row_;
  bool multiply_;
  int64_t rows_ = 0, channels_ = 0;
  const float* constant_ = nullptr;
  int64_t constant_rows_ = 1;
};

}  // namespace

std::unique_ptr<StepKernel> make_quantize(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<QuantizeStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_quantize_log(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<QuantizeLogStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_table(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<TableStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_dequantize(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<DequantizeStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_binary(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<BinaryStep>(plan, step, isa);
}

}  // namespace repquant::runtime
