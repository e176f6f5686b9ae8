#include "repquant/runtime/steps/product.h"

#include <fmt/format.h>

namespace repquant::runtime {

Product::Product(const Plan& plan, const Step& step, const GemmI8Shape& shape, Isa isa)
    : wide_(select_row(gemm_i8_kernels(), isa)),
      elements_(select_row(elementwise_kernels(), isa)) {
  const Buffer& in = input_buffer(plan, step, 0);
  expect(in.dtype == DType::kU8, step, "input of U8 codes", std::string(name_of(in.dtype)));
  args_.shape = shape;
  args_.out_stride = shape.n;
  args_.c = integers(plan, step, "c", shape.n);
  if (plan.find_tensor(step, "zw") != nullptr) args_.zw = integers(plan, step, "zw", shape.n);
  args_.za = static_cast<int32_t>(plan.integer(step, "za"));
  read_output(plan, step);
  pack(plan, step);
}

void Product::read_output(const Plan& plan, const Step& step) {
  const Buffer& out = output_buffer(plan, step);
  to_codes_ = out.dtype == DType::kU8;
  residual_ = step.in.size() > 1;
  if (to_codes_) {
    const CodeBounds bounds = code_bounds(plan, step);
    args_.m = floats(plan, step, "m", args_.shape.n);
    args_.zero = bounds.zero, args_.lo = bounds.lo, args_.hi = bounds.hi;
    expect(!residual_, step, "one input for codes out", std::to_string(step.in.size()));
    if (plan.find_tensor(step, "lut") != nullptr) table_ = code_table(plan, step);
    return;
  }
  args_.s = floats(plan, step, "s", args_.shape.n);
  args_.b = floats(plan, step, "b", args_.shape.n);
  if (!residual_) return;
  const Buffer& residual = input_buffer(plan, step, 1);
  expect(residual.dtype == DType::kF32 && items_of(residual) == items_of(out), step,
         fmt::format("a residual of {} F32", items_of(out)), to_string(residual.item_shape));
}

void Product::pack(const Plan& plan, const Step& step) {
  const auto named = step.tensors.find("w");
  expect(named != step.tensors.end(), step, "a tensor \"w\"", "none");
  const auto found = plan.tensors.find(named->second);
  expect(found != plan.tensors.end(), step, fmt::format("the tensor \"{}\"", named->second),
         "none");
  const PlanTensor& tensor = found->second;
  const GemmI8Shape& shape = args_.shape;
  expect(tensor.logical_shape == Shape{shape.n, shape.k}, step,
         fmt::format("weights of shape [{}, {}]", shape.n, shape.k),
         to_string(tensor.logical_shape));
  const std::vector<int8_t> codes = unpack_weights(tensor);
  if (wide_.isa == Isa::kAvx2) {  // the row that asks for it
    const int32_t top = (1 << input_buffer(plan, step, 0).bits) - 1;
    args_.pair_bound = pair_bound(shape, codes.data(), top);
  }
  if (tensor.bits <= 4) {
    bits_ = std::max(tensor.bits, 2);
    for (const GemmI4Kernel* row : gemm_i4_kernels())
      if (row->wide == &wide_) narrow_ = row;
  }
  if (narrow_ != nullptr) {
    packed_ = AlignedBytes(narrow_->packed_bytes(shape, bits_) + 64);
    narrow_->pack(shape, bits_, codes.data(), packed_.data());
  } else {
    packed_ = AlignedBytes(wide_.packed_bytes(shape) + 64);
    wide_.pack(shape, codes.data(), packed_.data());
  }
  args_.weights = packed_.data();
}

GemmI8Args Product::args(const StepIo& io, int64_t row, int64_t rows) const {
  GemmI8Args args = args_;
  const int64_t at = row * args.shape.n;
  args.rows = rows;
  if (to_codes_) {
    args.codes = reinterpret_cast<uint8_t*>(io.out) + at;
  } else {
    args.out = reinterpret_cast<float*>(io.out) + at;
    if (residual_) args.residual = reinterpret_cast<const float*>(io.in[1]) + at;
  }
  return args;
}

}  // namespace repquant::runtime
