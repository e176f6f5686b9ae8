// transpose, slice, prepend, pad, concat.
#include <fmt/format.h>

#include <algorithm>

#include "repquant/runtime/kernels/movement/movement.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

struct Dim {
  int64_t size, stride;
};

const std::vector<int64_t>& list(const Step& step, const std::string& key) {
  const auto found = step.lists.find(key);
  expect(found != step.lists.end(), step, fmt::format("a list \"{}\"", key), "none");
  return found->second;
}

// Drops dimensions of size 1 and joins neighbours that lie behind each other.
std::vector<Dim> simplify(const std::vector<Dim>& dims) {
  std::vector<Dim> joined;
  for (const Dim& dim : dims) {
    if (dim.size == 1) continue;
    if (!joined.empty() && joined.back().stride == dim.stride * dim.size) {
      joined.back() = {joined.back().size * dim.size, dim.stride};
    } else {
      joined.push_back(dim);
    }
  }
  return joined;
}

// A strided copy of every item. Units are the outermost dimension of the result (one unit an item
// when that is all there is, or contiguous).
class CopyStep final : public StepKernel {
 public:
  CopyStep(const Plan& plan, const Step& step, Isa isa, const std::vector<Dim>& dims,
           int64_t offset)
      : row_(select_row(movement_kernels(), isa)), offset_(offset) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    expect(in.dtype == out.dtype, step, "equal types in and out",
           fmt::format("{} and {}", name_of(in.dtype), name_of(out.dtype)));
    element_ = static_cast<int64_t>(size_of(in.dtype));
    if (element_ != 1 && element_ != 4)
      unsupported_step(step, std::string(name_of(in.dtype)), "U8 or F32");
    int64_t count = 1;
    for (const Dim& dim : dims) count *= dim.size;
    expect(count == items_of(out), step, fmt::format("an output of {} elements", count),
           to_string(out.item_shape));
    in_items_ = items_of(in), out_items_ = items_of(out);
    const std::vector<Dim> simple = simplify(dims);
    const size_t split = simple.size() > 1 ? 1 : 0;
    if (split == 1) outer_ = simple[0];
    if (simple.size() - split + 1 > kMaxCopyRank) {
      unsupported_step(step, fmt::format("{}", simple.size()), "at most 7 strided dimensions");
    }
    args_.element_bytes = static_cast<int>(element_);
    args_.sizes[0] = outer_.size;
    args_.strides[0] = outer_.stride;
    args_.rank = 1;
    for (size_t d = split; d < simple.size(); ++d) {
      args_.sizes[args_.rank] = simple[d].size;
      args_.strides[args_.rank++] = simple[d].stride;
    }
    if (args_.rank == 1) args_.sizes[1] = 1, args_.strides[1] = 1, args_.rank = 2;
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return outer_.size; }
  double ns_per_unit() const override {
    return static_cast<double>(out_items_) / static_cast<double>(outer_.size) * 0.2;
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    const int64_t piece = out_items_ / outer_.size;
    for (int64_t unit = begin; unit < end;) {  // neighbouring units of an item are one copy
      const int64_t first = unit % outer_.size;
      CopyArgs args = args_;
      args.sizes[0] = std::min(end - unit, outer_.size - first);
      const int64_t from = unit / outer_.size * in_items_ + offset_ + first * outer_.stride;
      args.from = io.in[0] + from * element_;
      args.to = io.out + unit * piece * element_;
      row_.copy(args);
      unit += args.sizes[0];
    }
  }

 private:
  const MovementKernel& row_;
  int64_t offset_ = 0, element_ = 4, in_items_ = 0, out_items_ = 0;
  Dim outer_{1, 0};
  CopyArgs args_;
};

// Units are items.
class PrependStep final : public StepKernel {
 public:
  PrependStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(movement_kernels(), isa)) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    const Tensor& constant = plan.tensor(step, "const");
    expect(in.dtype == out.dtype && in.dtype == constant.dtype(), step, "one type",
           fmt::format("{}, {} and constant {}", name_of(in.dtype), name_of(out.dtype),
                       name_of(constant.dtype())));
    expect(constant.size() + items_of(in) == items_of(out) && channels_of(in) == channels_of(out) &&
               constant.size() % channels_of(in) == 0,
           step, fmt::format("an output of {} elements", constant.size() + items_of(in)),
           to_string(out.item_shape));
    head_ = static_cast<const std::byte*>(constant.data());
    head_bytes_ = static_cast<int64_t>(constant.bytes());
    tail_bytes_ = items_of(in) * static_cast<int64_t>(size_of(in.dtype));
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return 1; }
  double ns_per_unit() const override {
    return 0.02 * static_cast<double>(head_bytes_ + tail_bytes_);
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    for (int64_t item = begin; item < end; ++item) {
      std::byte* to = io.out + item * (head_bytes_ + tail_bytes_);
      std::memcpy(to, head_, static_cast<size_t>(head_bytes_));
      std::memcpy(to + head_bytes_, io.in[0] + item * tail_bytes_,
                  static_cast<size_t>(tail_bytes_));
    }
  }

 private:
  const MovementKernel& row_;
  const std::byte* head_ = nullptr;
  int64_t head_bytes_ = 0, tail_bytes_ = 0;
};

// Units are items: the border is filled, then lines of the last axis are copied.
class PadStep final : public StepKernel {
 public:
  PadStep(const Plan& plan, const Step& step) {
    const Buffer &in = input_buffer(plan, step, 0), &out = output_buffer(plan, step);
    from_ = in.item_shape, to_ = out.item_shape, before_ = list(step, "before");
    expect(in.dtype == out.dtype && from_.size() == to_.size() && before_.size() == to_.size(),
           step, "equal types and ranks", to_string(to_));
    for (size_t i = 0; i < to_.size(); ++i) {
      expect(before_[i] >= 0 && before_[i] + from_[i] <= to_[i], step, "room for the input",
             to_string(to_));
    }
    width_ = static_cast<int64_t>(size_of(in.dtype));
    if (in.dtype == DType::kU8) fill_ = static_cast<uint8_t>(plan.integer(step, "fill"));
    in_items_ = items_of(in), out_items_ = items_of(out);
  }
  std::string_view name() const override { return "pad/copy"; }
  int64_t units() const override { return 1; }
  double ns_per_unit() const override { return 0.1 * static_cast<double>(out_items_); }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    for (int64_t item = begin; item < end; ++item) {
      std::byte* to = io.out + item * out_items_ * width_;
      std::memset(to, fill_, static_cast<size_t>(out_items_ * width_));
      const std::byte* from = io.in[0] + item * in_items_ * width_;
      const int64_t line = from_.back();
      for (int64_t first = 0; first < in_items_; first += line, from += line * width_) {
        int64_t rest = first, offset = 0, stride = 1;
        for (size_t axis = from_.size(); axis-- > 0;) {
          offset += (rest % from_[axis] + before_[axis]) * stride;
          rest /= from_[axis];
          stride *= to_[axis];
        }
        std::memcpy(to + offset * width_, from, static_cast<size_t>(line * width_));
      }
    }
  }

 private:
  Shape from_, to_;
  std::vector<int64_t> before_;
  int64_t width_ = 4, in_items_ = 0, out_items_ = 0;
  int fill_ = 0;
};

// Units are lines: what lies before the axis.
class ConcatStep final : public StepKernel {
 public:
  ConcatStep(const Plan& plan, const Step& step) {
    const Buffer& out = output_buffer(plan, step);
    const int64_t axis = plan.integer(step, "axis");
    expect(0 <= axis && axis < static_cast<int64_t>(out.item_shape.size()), step,
           fmt::format("an axis of {}", to_string(out.item_shape)), std::to_string(axis));
    for (int64_t i = 0; i < axis; ++i) lines_ *= out.item_shape[static_cast<size_t>(i)];
    int64_t total = 0;
    for (size_t i = 0; i < step.in.size(); ++i) {
      const Buffer& part = input_buffer(plan, step, i);
      expect(part.dtype == out.dtype && items_of(part) % lines_ == 0, step, "parts that fit",
             to_string(part.item_shape));
      bytes_.push_back(items_of(part) / lines_ * static_cast<int64_t>(size_of(part.dtype)));
      total += items_of(part);
      line_ += bytes_.back();
    }
    expect(total == items_of(out), step, fmt::format("an output of {} elements", total),
           to_string(out.item_shape));
  }
  std::string_view name() const override { return "concat/copy"; }
  int64_t units() const override { return lines_; }
  int64_t grain() const override { return std::max<int64_t>(1, 4096 / line_); }
  double ns_per_unit() const override {
    return 4.0 * static_cast<double>(bytes_.size()) + 0.05 * static_cast<double>(line_);
  }
  void run(const StepIo& io, int64_t begin, int64_t end, std::byte*) const noexcept override {
    std::byte* to = io.out + begin * line_;
    for (size_t part = 0; part < bytes_.size(); to += bytes_[part++]) {
      const int64_t bytes = bytes_[part];
      const std::byte* from = io.in[part] + begin * bytes;
      std::byte* at = to;
      for (int64_t unit = begin; unit < end; ++unit, from += bytes, at += line_)
        std::memcpy(at, from, static_cast<size_t>(bytes));
    }
  }

 private:
  int64_t lines_ = 1, line_ = 0;  // bytes of a line
  std::vector<int64_t> bytes_;    // of one line of each input
};

}  // namespace

std::unique_ptr<StepKernel> make_concat(const Plan& plan, const Step& step, Isa) {
  return std::make_unique<ConcatStep>(plan, step);
}

std::unique_ptr<StepKernel> make_pad(const Plan& plan, const Step& step, Isa) {
  return std::make_unique<PadStep>(plan, step);
}

std::unique_ptr<StepKernel> make_transpose(const Plan& plan, const Step& step, Isa isa) {
  const std::vector<int64_t>&dims = list(step, "dims"), &perm = list(step, "perm");
  const Buffer& in = input_buffer(plan, step, 0);
  const size_t rank = dims.size();
  expect(perm.size() == rank && element_count(dims) == items_of(in), step,
         fmt::format("dims and perm of {} elements", items_of(in)), to_string(dims));
  std::vector<int64_t> strides(rank, 1);
  for (size_t d = rank; d-- > 1;) strides[d - 1] = strides[d] * dims[d];
  std::vector<bool> seen(rank, false);
  std::vector<Dim> result;
  for (const int64_t axis : perm) {
    expect(0 <= axis && axis < static_cast<int64_t>(rank) && !seen[static_cast<size_t>(axis)], step,
           "a permutation", to_string(perm));
    seen[static_cast<size_t>(axis)] = true;
    result.push_back({dims[static_cast<size_t>(axis)], strides[static_cast<size_t>(axis)]});
  }
  return std::make_unique<CopyStep>(plan, step, isa, result, 0);
}

std::unique_ptr<StepKernel> make_slice(const Plan& plan, const Step& step, Isa isa) {
  const std::vector<int64_t>& range = list(step, "range");
  const Shape& shape = input_buffer(plan, step, 0).item_shape;
  expect(range.size() == 4, step, "range {axis, start, stop, step}", to_string(range));
  const int64_t axis = range[0], start = range[1], stop = range[2], stride = range[3];
  expect(0 <= axis && axis < static_cast<int64_t>(shape.size()), step,
         fmt::format("an axis of {}", to_string(shape)), std::to_string(axis));
  const int64_t size = shape[static_cast<size_t>(axis)];
  expect(0 <= start && start < stop && stop <= size && stride >= 1, step,
         fmt::format("a range within {} elements and a positive step", size), to_string(range));
  int64_t inner = 1, outer = 1;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (static_cast<int64_t>(d) < axis) outer *= shape[d];
    if (static_cast<int64_t>(d) > axis) inner *= shape[d];
  }
  const int64_t count = (stop - start - 1) / stride + 1;
  const std::vector<Dim> dims{{outer, size * inner}, {count, stride * inner}, {inner, 1}};
  return std::make_unique<CopyStep>(plan, step, isa, dims, start * inner);
}

std::unique_ptr<StepKernel> make_prepend(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<PrependStep>(plan, step, isa);
}

}  // namespace repquant::runtime
