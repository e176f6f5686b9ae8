#include <fmt/format.h>

#include "repquant/runtime/steps/product.h"

namespace repquant::runtime {
namespace {

// Units are rows.
class LinearStep final : public StepKernel {
 public:
  LinearStep(const Plan& plan, const Step& step, Isa isa)
      : product_(plan, step,
                 {.n = channels_of(output_buffer(plan, step)),
                  .k = channels_of(input_buffer(plan, step, 0))},
                 isa),
        rows_(rows_of(output_buffer(plan, step))) {
    const int64_t given = rows_of(input_buffer(plan, step, 0));
    expect(given == rows_, step, fmt::format("an output of {} rows", given), std::to_string(rows_));
  }

  std::string_view name() const override { return product_.name(); }
  int64_t units() const override { return rows_; }
  int64_t grain() const override { return product_.tile_rows(); }
  double ns_per_unit() const override { return product_.ns_per_row(); }
  size_t scratch_bytes() const override { return product_.scratch_bytes(); }
  size_t packed_bytes() const override { return product_.packed_bytes(); }
  std::vector<int> in_place() const override {
    return product_.has_residual() ? std::vector<int>{1} : std::vector<int>{};
  }

  void run(const StepIo& io, int64_t begin, int64_t end,
           std::byte* scratch) const noexcept override {
    GemmI8Args args = product_.args(io, begin, end - begin);
    args.a = reinterpret_cast<const uint8_t*>(io.in[0]) + begin * args.shape.k;
    args.stride_x = args.shape.k;
    args.scratch = scratch;
    product_.run(args);
  }

 private:
  Product product_;
  int64_t rows_;
};

}  // namespace

std::unique_ptr<StepKernel> make_linear(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<LinearStep>(plan, step, isa);
}

}  // namespace repquant::runtime
