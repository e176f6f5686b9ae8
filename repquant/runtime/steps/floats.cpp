// activation, binary, reduce, gather_rows, cast.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "repquant/runtime/kernels/activation/activation.h"
#include "repquant/runtime/kernels/floats/floats.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

const float* reals(const std::byte* at) { return reinterpret_cast<const float*>(at); }
float* reals(std::byte* at) { return reinterpret_cast<float*>(at); }

void expect_type(const Step& step, const Buffer& buffer, DType dtype) {
  expect(buffer.dtype == dtype, step, fmt::format("\"{}\" of {}", buffer.name, name_of(dtype)),
         std::string(name_of(buffer.dtype)));
}

// Units are elements.
class ActivationStep final : public StepKernel {
 public:
  ActivationStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(activation_kernels(), isa)),
        elements_(items_of(output_buffer(plan, step))) {
    expect_type(step, input_buffer(plan, step, 0), DType::kF32);
    expect_type(step, output_buffer(plan, step), DType::kF32);
    expect(items_of(input_buffer(plan, step, 0)) == elements_, step, "as many elements out as in",
           std::to_string(elements_));
    args_ = activation_args(plan, step);
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return elements_; }
  int64_t grain() const override { return 1024; }
  double ns_per_unit() const override { return 0.6; }
  std::vector<int> in_place() const override { return {0}; }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    ActivationArgs args = args_;
    args.x = reals(io.in[0]) + begin, args.out = reals(io.out) + begin, args.count = end - begin;
    row_.run(args);
  }

 private:
  const ActivationKernel& row_;
  int64_t elements_;
  ActivationArgs args_;
};

// An axis of the result with the steps of both operands along it.
struct Axis {
  int64_t size, a, b;
};

// Strides of `shape` along the axes of `to`; 0 where it is repeated.
std::vector<int64_t> broadcast_strides(const Shape& shape, const Shape& to) {
  std::vector<int64_t> strides(to.size(), 0);
  int64_t stride = 1;
  for (size_t back = 1; back <= shape.size(); ++back) {
    const int64_t size = shape[shape.size() - back];
    if (size != 1) strides[to.size() - back] = stride;
    stride *= size;
  }
  return strides;
}

// Axes of length 1 dropped, neighbours that lie behind each other in both operands joined.
std::vector<Axis> joined_axes(const Shape& to, const Shape& a, const Shape& b) {
  const std::vector<int64_t> step_a = broadcast_strides(a, to), step_b = broadcast_strides(b, to);
  std::vector<Axis> axes;
  for (size_t i = 0; i < to.size(); ++i) {
    if (to[i] == 1) continue;
    const Axis axis{to[i], step_a[i], step_b[i]};
    if (!axes.empty() && axes.back().a == axis.a * axis.size &&
        axes.back().b == axis.b * axis.size) {
      axes.back() = {axes.back().size * axis.size, axis.a, axis.b};
    } else {
      axes.push_back(axis);
    }
  }
  if (axes.empty()) axes.push_back({1, 1, 1});
  return axes;
}

// Units are pieces of the innermost axis.
class BroadcastStep final : public StepKernel {
 public:
  BroadcastStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(floats_kernels(), isa)) {
    const Buffer &first = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    expect_type(step, first, DType::kF32);
    expect_type(step, out, DType::kF32);
    const auto kind = binary_kind(text(step, "kind"));
    if (!kind) unsupported_step(step, text(step, "kind"), "an operation of this runtime");
    args_.kind = *kind;
    Shape other;
    if (step.in.size() == 2) {
      expect_type(step, input_buffer(plan, step, 1), DType::kF32);
      other = input_buffer(plan, step, 1).item_shape;
    } else {
      other = plan.tensor(step, "const").shape();
      constant_ = floats(plan, step, "const", element_count(other));
    }
    std::vector<Axis> axes = joined_axes(out.item_shape, first.item_shape, other);
    inner_ = axes.back();
    axes.pop_back();
    outer_ = std::move(axes);
    args_.a_step = inner_.a, args_.b_step = inner_.b;
    items_ = {items_of(first), constant_ != nullptr ? 0 : element_count(other), items_of(out)};
    pieces_ = (inner_.size + kPiece - 1) / kPiece;
    if (items_[0] == items_[2]) in_place_.push_back(0);
    if (items_[1] == items_[2]) in_place_.push_back(1);
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return items_[2] / inner_.size * pieces_; }
  int64_t grain() const override { return std::max<int64_t>(1, 1024 / inner_.size); }
  double ns_per_unit() const override {
    return 10.0 + 0.3 * static_cast<double>(std::min(inner_.size, kPiece));
  }
  std::vector<int> in_place() const override { return in_place_; }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    const int64_t an_item = units();
    const float *a = reals(io.in[0]), *b = constant_ != nullptr ? constant_ : reals(io.in[1]);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t item = unit / an_item, line = unit % an_item / pieces_;
      const int64_t first = unit % pieces_ * kPiece;
      int64_t at_a = item * items_[0] + first * inner_.a,
              at_b = item * items_[1] + first * inner_.b;
      int64_t rest = line;
      for (size_t i = outer_.size(); i-- > 0;) {
        const int64_t place = rest % outer_[i].size;
        rest /= outer_[i].size;
        at_a += place * outer_[i].a, at_b += place * outer_[i].b;
      }
      BroadcastArgs args = args_;
      args.a = a + at_a, args.b = b + at_b;
      args.out = reals(io.out) + item * items_[2] + line * inner_.size + first;
      args.count = std::min(kPiece, inner_.size - first);
      row_.binary(args);
    }
  }

 private:
  static constexpr int64_t kPiece = 4096;
  const FloatsKernel& row_;
  BroadcastArgs args_;
  const float* constant_ = nullptr;
  Axis inner_{1, 1, 1};
  std::vector<Axis> outer_;
  std::array<int64_t, 3> items_{};  // elements of an item: a, b (0: constant), out
  int64_t pieces_ = 1;
  std::vector<int> in_place_;
};

// Units are lines of the reduced axes, or blocks of columns of them.
class ReduceStep final : public StepKernel {
 public:
  ReduceStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(floats_kernels(), isa)) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    expect_type(step, in, DType::kF32);
    expect_type(step, out, DType::kF32);
    const auto kind = reduce_kind(text(step, "kind"));
    if (!kind) unsupported_step(step, text(step, "kind"), "a reduction of this runtime");
    const auto axes = step.lists.find("axes");
    const auto rank = static_cast<int64_t>(in.item_shape.size());
    const bool fits = axes != step.lists.end() && axes->second.size() == 2 &&
                      0 <= axes->second[0] && axes->second[0] <= axes->second[1] &&
                      axes->second[1] < rank;
    expect(fits, step, "a list \"axes\" {first, last}", "another");
    args_.kind = *kind, args_.length = 1;
    for (int64_t i = 0; i < rank; ++i) {
      const int64_t size = in.item_shape[static_cast<size_t>(i)];
      if (i > axes->second[1]) columns_ *= size;
      else if (i >= axes->second[0]) args_.length *= size;
      else lines_ *= size;
    }
    expect(items_of(out) == lines_ * columns_, step,
           fmt::format("an output of {} elements", lines_ * columns_), to_string(out.item_shape));
    args_.stride = columns_;
    blocks_ = (columns_ + kReduceBlock - 1) / kReduceBlock;
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return lines_ * blocks_; }
  double ns_per_unit() const override {
    return 20.0 + 0.3 * static_cast<double>(args_.length * std::min(columns_, kReduceBlock));
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t line = unit / blocks_, first = unit % blocks_ * kReduceBlock;
      ReduceArgs args = args_;
      args.x = reals(io.in[0]) + line * args.length * columns_ + first;
      args.out = reals(io.out) + line * columns_ + first;
      args.columns = std::min(kReduceBlock, columns_ - first);
      columns_ == 1 ? row_.reduce_row(args) : row_.reduce(args);
    }
  }

 private:
  const FloatsKernel& row_;
  ReduceArgs args_;
  int64_t lines_ = 1, columns_ = 1, blocks_ = 1;
};

// Units are rows of the output.
class PoolStep final : public StepKernel {
 public:
  PoolStep(const Plan& plan, const Step& step, Isa isa) : row_(select_row(floats_kernels(), isa)) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    expect(in.item_shape.size() == 3 && in.dtype == out.dtype, step, "items [H, W, C] of one type",
           to_string(in.item_shape));
    args_.window = Window::of(step);
    args_.height = in.item_shape[0], args_.width = in.item_shape[1];
    args_.channels = in.item_shape[2];
    rows_ = args_.window.rows(args_.height), args_.columns = args_.window.columns(args_.width);
    expect(items_of(out) == rows_ * args_.columns * args_.channels, step,
           fmt::format("an output of [{}, {}, {}]", rows_, args_.columns, args_.channels),
           to_string(out.item_shape));
    args_.average = step.op == "average_pool";
    args_.include_pad = args_.average && plan.integer(step, "include_pad") != 0;
    codes_ = in.dtype == DType::kU8;
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return rows_; }
  double ns_per_unit() const override {
    return 0.1 * static_cast<double>(args_.columns * args_.channels * args_.window.height *
                                     args_.window.width);
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    const int64_t image = args_.height * args_.width * args_.channels;
    const int64_t line = args_.columns * args_.channels;
    for (int64_t unit = begin; unit < end; ++unit) {
      PoolArgs args = args_;
      args.row = unit % rows_;
      const int64_t from = unit / rows_ * image, to = unit * line;
      if (codes_) {
        args.codes = reinterpret_cast<const uint8_t*>(io.in[0]) + from;
        args.code_out = reinterpret_cast<uint8_t*>(io.out) + to;
      } else {
        args.x = reals(io.in[0]) + from, args.out = reals(io.out) + to;
      }
      row_.pool(args);
    }
  }

 private:
  const FloatsKernel& row_;
  PoolArgs args_;
  int64_t rows_ = 0;
  bool codes_ = false;
};

int64_t integer_at(const std::byte* data, DType dtype, int64_t i) {
  return dtype == DType::kI64 ? reinterpret_cast<const int64_t*>(data)[i]
                              : reinterpret_cast<const int32_t*>(data)[i];
}

void expect_integers(const Step& step, const Buffer& buffer) {
  expect(buffer.dtype == DType::kI64 || buffer.dtype == DType::kI32, step, "input of I64 or I32",
         std::string(name_of(buffer.dtype)));
}

// Units are rows of the result.
class GatherRowsStep final : public StepKernel {
 public:
  GatherRowsStep(const Plan& plan, const Step& step)
      : dtype_(input_buffer(plan, step, 0).dtype), count_(items_of(input_buffer(plan, step, 0))) {
    expect_integers(step, input_buffer(plan, step, 0));
    const Shape& shape = plan.tensor(step, "table").shape();
    expect(shape.size() == 2 && shape[0] > 0, step, "a table [V, C]", to_string(shape));
    rows_ = shape[0], width_ = shape[1];
    table_ = floats(plan, step, "table", rows_ * width_);
    expect(items_of(output_buffer(plan, step)) == count_ * width_, step,
           fmt::format("an output of {} elements", count_ * width_),
           to_string(output_buffer(plan, step).item_shape));
  }
  std::string_view name() const override { return "gather_rows/copy"; }
  int64_t units() const override { return count_; }
  double ns_per_unit() const override { return 10.0 + 0.2 * static_cast<double>(width_); }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t index = integer_at(io.in[0], dtype_, i);
      const int64_t row = std::clamp<int64_t>(index < 0 ? index + rows_ : index, 0, rows_ - 1);
      std::memcpy(reals(io.out) + i * width_, table_ + row * width_,
                  static_cast<size_t>(width_) * sizeof(float));
    }
  }

 private:
  DType dtype_;
  int64_t count_, rows_ = 0, width_ = 0;
  const float* table_ = nullptr;
};

// Units are elements.
class CastStep final : public StepKernel {
 public:
  CastStep(const Plan& plan, const Step& step)
      : dtype_(input_buffer(plan, step, 0).dtype), count_(items_of(output_buffer(plan, step))) {
    expect_integers(step, input_buffer(plan, step, 0));
    expect_type(step, output_buffer(plan, step), DType::kF32);
    expect(items_of(input_buffer(plan, step, 0)) == count_, step, "as many elements out as in",
           std::to_string(count_));
  }
  std::string_view name() const override { return "cast/scalar"; }
  int64_t units() const override { return count_; }
  double ns_per_unit() const override { return 1.0; }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    for (int64_t i = begin; i < end; ++i)
      reals(io.out)[i] = static_cast<float>(integer_at(io.in[0], dtype_, i));
  }

 private:
  DType dtype_;
  int64_t count_;
};

}  // namespace

ActivationArgs activation_args(const Plan& plan, const Step& step) {
  const std::string kind = text(step, "kind");
  const auto parsed = function_kind(kind);
  if (!parsed) unsupported_step(step, fmt::format("\"{}\"", kind), "a function of this runtime");
  ActivationArgs args;
  args.kind = *parsed;
  const int parameters = function_law(*parsed).parameters;
  if (parameters == 0) return args;
  const float* p = floats(plan, step, "p", parameters);
  args.a = p[0];
  if (parameters > 1) args.b = p[1];
  return args;
}

std::unique_ptr<StepKernel> make_activation(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<ActivationStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_broadcast(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<BroadcastStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_pool(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<PoolStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_reduce(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<ReduceStep>(plan, step, isa);
}
std::unique_ptr<StepKernel> make_gather_rows(const Plan& plan, const Step& step, Isa) {
  return std::make_unique<GatherRowsStep>(plan, step);
}
std::unique_ptr<StepKernel> make_cast(const Plan& plan, const Step& step, Isa) {
  return std::make_unique<CastStep>(plan, step);
}

}  // namespace repquant::runtime
