#include <fmt/format.h>

#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

// Units are rows.
class LinearStep final : public StepKernel {
 public:
  LinearStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(gemm_i8_kernels(), isa)) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    expect(in.dtype == DType::kU8, step, "input of U8 codes", std::string(name_of(in.dtype)));
    args_.shape = {channels_of(out), channels_of(in)};
    rows_ = rows_of(out);
    expect(rows_of(in) == rows_, step, fmt::format("an output of {} rows", rows_of(in)),
           std::to_string(rows_));
    args_.c = integers(plan, step, "c", args_.shape.n);
    if (plan.find_tensor(step, "zw") != nullptr)
      args_.zw = integers(plan, step, "zw", args_.shape.n);
    args_.za = static_cast<int32_t>(plan.integer(step, "za"));
    to_codes_ = out.dtype == DType::kU8;
    if (to_codes_) {
      const CodeBounds bounds = code_bounds(plan, step);
      args_.m = floats(plan, step, "m", args_.shape.n);
      args_.zero = bounds.zero, args_.lo = bounds.lo, args_.hi = bounds.hi;
      expect(step.in.size() == 1, step, "one input for codes out", std::to_string(step.in.size()));
    } else {
      read_float_output(plan, step, out);
    }
    pack(plan, step);
  }

  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return rows_; }
  int64_t grain() const override { return row_.tile_rows; }
  double ns_per_unit() const override {
    return static_cast<double>(args_.shape.n) * (static_cast<double>(args_.shape.k) * 0.0022 + 0.1);
  }
  size_t scratch_bytes() const override { return row_.scratch_bytes(args_.shape); }
  size_t packed_bytes() const override { return packed_.size(); }
  std::vector<int> in_place() const override {
    return residual_ ? std::vector<int>{1} : std::vector<int>{};
  }

  void run(const StepIo& io, int64_t begin, int64_t end,
           std::byte* scratch) const noexcept override {
    GemmI8Args args = args_;
    const int64_t at = begin * args.shape.n;
    args.rows = end - begin;
    args.a = reinterpret_cast<const uint8_t*>(io.in[0]) + begin * args.shape.k;
    if (to_codes_) {
      args.codes = reinterpret_cast<uint8_t*>(io.out) + at;
    } else {
      args.out = reinterpret_cast<float*>(io.out) + at;
      if (residual_) args.residual = reinterpret_cast<const float*>(io.in[1]) + at;
    }
    args.scratch = scratch;
    row_.run(args);
  }

 private:
  void read_float_output(const Plan& plan, const Step& step, const Buffer& out) {
    args_.s = floats(plan, step, "s", args_.shape.n);
    args_.b = floats(plan, step, "b", args_.shape.n);
    residual_ = step.in.size() > 1;
    if (!residual_) return;
    const Buffer& residual = input_buffer(plan, step, 1);
    expect(residual.dtype == DType::kF32 && items_of(residual) == items_of(out), step,
           fmt::format("a residual of {} F32", items_of(out)), to_string(residual.item_shape));
  }

  void pack(const Plan& plan, const Step& step) {
    const auto named = step.tensors.find("w");
    expect(named != step.tensors.end(), step, "a tensor \"w\"", "none");
    const auto found = plan.tensors.find(named->second);
    expect(found != plan.tensors.end(), step, fmt::format("the tensor \"{}\"", named->second),
           "none");
    const PlanTensor& tensor = found->second;
    expect(tensor.logical_shape == Shape{args_.shape.n, args_.shape.k}, step,
           fmt::format("weights of shape [{}, {}]", args_.shape.n, args_.shape.k),
           to_string(tensor.logical_shape));
    const std::vector<int8_t> codes = unpack_weights(tensor);
    packed_ = AlignedBytes(row_.packed_bytes(args_.shape) + 64);
    row_.pack(args_.shape, codes.data(), packed_.data());
    args_.weights = packed_.data();
  }

  const GemmI8Kernel& row_;
  GemmI8Args args_;
  AlignedBytes packed_;
  int64_t rows_ = 0;
  bool to_codes_ = false, residual_ = false;
};

}  // namespace

std::unique_ptr<StepKernel> make_linear(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<LinearStep>(plan, step, isa);
}

}  // namespace repquant::runtime
