#pragma once
// The operands that `linear` and `conv` share, and the row of gemm_i8 or gemm_i4 that takes them.
#include "repquant/runtime/kernels/elementwise/elementwise.h"
#include "repquant/runtime/kernels/gemm_i4/gemm_i4.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {

class Product {
 public:
  // Weights [n][k] of `lines` lines, their constants, and the way out to codes or floats. Weights
  // of up to 4 bits stay packed.
  Product(const Plan& plan, const Step& step, const GemmI8Shape& shape, Isa isa);

  std::string_view name() const { return narrow_ != nullptr ? narrow_->name : wide_.name; }
  int64_t tile_rows() const { return wide_.tile_rows; }
  size_t scratch_bytes() const {
    return narrow_ != nullptr ? narrow_->scratch_bytes(shape()) : wide_.scratch_bytes(shape());
  }
  size_t packed_bytes() const { return packed_.size(); }
  bool has_residual() const { return residual_; }
  bool needs_sums() const { return args_.zw != nullptr; }
  // Sums of `count` neighbouring pixels of so many codes, each sum_k (a - za).
  void sum_pixels(const uint8_t* a, int64_t channels, int64_t count, int32_t* sums) const noexcept {
    GemmI8Args pixels;
    pixels.shape = {.n = 0, .k = channels};
    pixels.rows = count;
    pixels.a = a;
    pixels.stride_x = channels;
    pixels.za = args_.za;
    wide_.sums(pixels, sums);
  }
  const GemmI8Shape& shape() const { return args_.shape; }
  double ns_per_row() const {
    return static_cast<double>(shape().n) * (static_cast<double>(shape().k) * 0.0022 + 0.1);
  }

  // Arguments for rows of output from `row` on; where codes lie and scratch are the caller's.
  GemmI8Args args(const StepIo& io, int64_t row, int64_t rows) const;
  void run(const GemmI8Args& args) const noexcept {
    if (narrow_ != nullptr) narrow_->run(args, bits_);
    else wide_.run(args);
    if (table_ == nullptr) return;
    elements_.table({args.codes, args.codes, args.rows * args.shape.n, table_});
  }

 private:
  void read_output(const Plan& plan, const Step& step);
  void pack(const Plan& plan, const Step& step);

  const GemmI8Kernel& wide_;
  const ElementwiseKernel& elements_;
  const uint8_t* table_ = nullptr;  // behind the codes
  const GemmI4Kernel* narrow_ = nullptr;
  int bits_ = 8;
  GemmI8Args args_;
  AlignedBytes packed_;
  bool to_codes_ = false, residual_ = false;
};

}  // namespace repquant::runtime
