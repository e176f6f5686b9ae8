// layer_norm, rms_norm, mean_rows.
#include <fmt/format.h>

#include <algorithm>

#include "repquant/runtime/kernels/norm/norm.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

// Units are rows.
class NormStep final : public StepKernel {
 public:
  NormStep(const Plan& plan, const Step& step, Isa isa) : row_(select_row(norm_kernels(), isa)) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    const bool layer = step.op == "layer_norm";
    expect(in.dtype == DType::kF32, step, "input of F32", std::string(name_of(in.dtype)));
    args_.channels = plan.tensor(step, "g").size();
    expect(
        items_of(in) == items_of(out) && args_.channels > 0 && items_of(in) % args_.channels == 0,
        step, "an output of " + to_string(in.item_shape), to_string(out.item_shape));
    kernel_ = layer ? row_.layer_norm : row_.rms_norm;
    rows_ = items_of(in) / args_.channels;
    args_.gain = floats(plan, step, "g", args_.channels);
    if (layer || plan.find_tensor(step, "beta") != nullptr) {
      args_.beta = floats(plan, step, "beta", args_.channels);
    }
    args_.eps = scalar(plan, step, "eps");
    to_codes_ = out.dtype == DType::kU8;
    if (!to_codes_) return;
    const CodeBounds bounds = code_bounds(plan, step);
    args_.zero = bounds.zero, args_.lo = bounds.lo, args_.hi = bounds.hi;
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return rows_; }
  double ns_per_unit() const override { return 0.12 * static_cast<double>(args_.channels) + 2.0; }
  std::vector<int> in_place() const override {
    return to_codes_ ? std::vector<int>{} : std::vector<int>{0};
  }

  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    NormArgs args = args_;
    const int64_t at = begin * args.channels;
    args.x = reinterpret_cast<const float*>(io.in[0]) + at;
    args.rows = end - begin;
    if (to_codes_) {
      args.codes = reinterpret_cast<uint8_t*>(io.out) + at;
    } else {
      args.out = reinterpret_cast<float*>(io.out) + at;
    }
    kernel_(args);
  }

 private:
  const NormKernel& row_;
  void (*kernel_)(const NormArgs&) noexcept = nullptr;
  NormArgs args_;
  int64_t rows_ = 0;
  bool to_codes_ = false;
};

// Units are blocks of channels of one item.
class MeanRowsStep final : public StepKernel {
 public:
  MeanRowsStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(norm_kernels(), isa)) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    expect(in.dtype == DType::kF32 && out.dtype == DType::kF32, step, "F32 in and out",
           fmt::format("{} and {}", name_of(in.dtype), name_of(out.dtype)));
    args_.rows = rows_of(in), args_.channels = channels_of(in);
    expect(args_.rows > 0 && items_of(out) == args_.channels, step,
           fmt::format("an output of {} elements", args_.channels), std::to_string(items_of(out)));
    blocks_ = (args_.channels + kMeanRowsBlock - 1) / kMeanRowsBlock;
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return blocks_; }
  double ns_per_unit() const override {
    return 0.1 * static_cast<double>(args_.rows * kMeanRowsBlock);
  }

  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    for (int64_t unit = begin; unit < end; ++unit) {
      MeanRowsArgs args = args_;
      const int64_t item = unit / blocks_;
      args.x = reinterpret_cast<const float*>(io.in[0]) + item * args.rows * args.channels;
      args.out = reinterpret_cast<float*>(io.out) + item * args.channels;
      args.first = unit % blocks_ * kMeanRowsBlock;
      args.count = std::min(kMeanRowsBlock, args.channels - args.first);
      row_.mean_rows(args);
    }
  }

 private:
  const NormKernel& row_;
  MeanRowsArgs args_;
  int64_t blocks_ = 0;
};

}  // namespace

std::unique_ptr<StepKernel> make_norm(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<NormStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_mean_rows(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<MeanRowsStep>(plan, step, isa);
}

}  // namespace repquant::runtime
