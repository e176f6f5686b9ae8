#include <fmt/format.h>

#include <algorithm>

#include "repquant/core/format/log.h"
#include "repquant/runtime/kernels/attention_i8/attention_i8.h"
#include "repquant/runtime/steps/steps.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kRowsPerUnit = 36;  // a multiple of every row's tile (4, 6); 197 tokens: 6 units
constexpr int32_t kMaxNarrowLevel = 1 << 14;
constexpr int64_t kMaxInputZero = 32000;  // differences to codes stay int16

// Units are blocks of query rows of one head of one window of one item.
class AttentionStep final : public StepKernel {
 public:
  AttentionStep(const Plan& plan, const Step& step, Isa isa)
      : row_(select_row(attention_i8_kernels(), isa)) {
    read_shape(plan, step);
    read_zero_points(plan, step);
    multipliers_ = floats(plan, step, "m", args_.shape.heads, true);
    per_head_ = plan.tensor(step, "m").size() > 1;
    outputs_ = floats(plan, step, "mo", args_.shape.heads, true);
    output_per_head_ = plan.tensor(step, "mo").size() > 1;
    read_codes(plan, step);
    read_terms(plan, step);
    args_.levels = &levels_;
    to_codes_ = output_buffer(plan, step).dtype == DType::kU8;
    if (!to_codes_) return;
    const CodeBounds bounds = code_bounds(plan, step);
    args_.zero = bounds.zero, args_.lo = bounds.lo, args_.hi = bounds.hi;
  }
  std::string_view name() const override { return row_.name; }
  int64_t units() const override { return windows_ * args_.shape.heads * blocks_; }
  double ns_per_unit() const override {
    const auto cells =
        static_cast<double>(std::min(kRowsPerUnit, args_.shape.query_rows) * args_.shape.key_rows);
    return cells * (0.3 + 0.006 * static_cast<double>(args_.shape.width));
  }
  size_t scratch_bytes() const override { return row_.scratch_bytes(args_.shape); }

  void run(const StepIo& io, int64_t begin, int64_t end,
           std::byte* scratch) const noexcept override {
    const AttentionI8Shape& shape = args_.shape;
    const int64_t width = shape.heads * shape.width;
    int64_t& loaded = head_of(scratch).held;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t pair = unit / blocks_, head = pair % shape.heads;
      const int64_t item = pair / shape.heads, window = item % windows_;  // windows are items here
      AttentionI8Args args = args_;
      args.q = reinterpret_cast<const uint8_t*>(io.in[0]) + item * shape.query_rows * width;
      args.k = reinterpret_cast<const uint8_t*>(io.in[1]) + item * shape.key_rows * width;
      args.v = reinterpret_cast<const uint8_t*>(io.in[2]) + item * shape.key_rows * width;
      const int64_t out = item * shape.query_rows * width;
      if (to_codes_) {
        args.codes = reinterpret_cast<uint8_t*>(io.out) + out;
      } else {
        args.out = reinterpret_cast<float*>(io.out) + out;
      }
      args.head = head;
      args.first_row = unit % blocks_ * kRowsPerUnit;
      args.rows = std::min(kRowsPerUnit, shape.query_rows - args.first_row);
      args.load = pair != loaded;
      args.m = multipliers_[per_head_ ? head : 0];
      args.mo = outputs_[output_per_head_ ? head : 0];
      const int64_t plane = shape.query_rows * shape.key_rows;
      if (bias_ != nullptr) args.bias = bias_ + (window * bias_window_ + head * bias_head_) * plane;
      if (mask_ != nullptr) args.mask = mask_ + window * mask_window_ * plane;
      args.scratch = scratch;
      row_.run(args);
      loaded = pair;
    }
  }

 private:
  void read_shape(const Plan& plan, const Step& step) {
    AttentionI8Shape& shape = args_.shape;
    const Buffer &q = input_buffer(plan, step, 0), &k = input_buffer(plan, step, 1),
                 &v = input_buffer(plan, step, 2), &out = output_buffer(plan, step);
    expect(q.dtype == DType::kU8 && k.dtype == DType::kU8 && v.dtype == DType::kU8, step,
           "inputs of U8 codes", "another type");
    const int64_t width = channels_of(q);
    shape.heads = plan.integer(step, "heads");
    expect(shape.heads >= 1 && width % shape.heads == 0, step,
           fmt::format("a number of heads that divides {}", width), std::to_string(shape.heads));
    shape.width = width / shape.heads;
    expect(q.item_shape.size() == 2 || q.item_shape.size() == 3, step,
           "items [T, heads*d] or [W, T, heads*d]", to_string(q.item_shape));
    if (q.item_shape.size() == 3) windows_ = q.item_shape[0];
    shape.query_rows = shape.key_rows = rows_of(q) / windows_;
    expect(k.item_shape == q.item_shape && v.item_shape == q.item_shape &&
               items_of(out) == items_of(q) && channels_of(out) == width && shape.key_rows > 0,
           step, fmt::format("q, k, v and output of one shape, {} channels", width),
           fmt::format("{}, {}, {}, {}", to_string(q.item_shape), to_string(k.item_shape),
                       to_string(v.item_shape), to_string(out.item_shape)));
    if (shape.width > 32768)
      unsupported_step(step, std::to_string(shape.width), "heads up to 32768 wide");
    if (shape.key_rows > 8'000'000) {  // int32 sums of row codes
      unsupported_step(step, std::to_string(shape.key_rows), "at most 8000000 keys");
    }
    blocks_ = (shape.query_rows + kRowsPerUnit - 1) / kRowsPerUnit;
  }

  void read_zero_points(const Plan& plan, const Step& step) {
    const auto read = [&](const char* key) {
      const int64_t zero = plan.integer(step, key);
      if (zero < -kMaxInputZero || zero > kMaxInputZero) {
        unsupported_step(step, fmt::format("{} {}", key, zero),
                         fmt::format("zero points of q, k, v within {}", kMaxInputZero));
      }
      return static_cast<int32_t>(zero);
    };
    args_.zq = read("zq"), args_.zk = read("zk"), args_.zv = read("zv");
    levels_.wide = args_.zv < 0 || args_.zv > 255;
  }

  void read_terms(const Plan& plan, const Step& step) {
    const int64_t plane = args_.shape.query_rows * args_.shape.key_rows;
    if (const Tensor* bias = plan.find_tensor(step, "bias")) {
      expect(bias->dtype() == DType::kF32 && bias->rank() == 4 &&
                 (bias->shape()[0] == 1 || bias->shape()[0] == windows_) &&
                 (bias->shape()[1] == 1 || bias->shape()[1] == args_.shape.heads) &&
                 bias->size() == bias->shape()[0] * bias->shape()[1] * plane,
             step, "\"bias\" f32[1 or W, 1 or heads, T, T]", to_string(bias->shape()));
      bias_ = bias->as<float>().data();
      bias_head_ = bias->shape()[1] == 1 ? 0 : 1;
      bias_window_ = bias->shape()[0] == 1 ? 0 : bias->shape()[1];
    }
    if (const Tensor* mask = plan.find_tensor(step, "mask")) {
      expect(mask->dtype() == DType::kU8 && mask->rank() == 3 &&
                 (mask->shape()[0] == 1 || mask->shape()[0] == windows_) &&
                 mask->size() == mask->shape()[0] * plane,
             step, "\"mask\" u8[1 or W, T, T]", to_string(mask->shape()));
      mask_ = mask->as<uint8_t>().data();
      mask_window_ = mask->shape()[0] == 1 ? 0 : 1;
    }
  }

  void read_codes(const Plan& plan, const Step& step) {
    const std::string codes = text(step, "codes"), pv = text(step, "pv");
    if (codes == "log") {
      args_.codes_kind = ProbabilityCodes::kLog;
      args_.level_count = plan.tensor(step, "thr").size();
      expect(1 <= args_.level_count && args_.level_count <= 255, step, "1 to 255 thresholds",
             std::to_string(args_.level_count));
      args_.thresholds = floats(plan, step, "thr", args_.level_count);
      args_.fit = fit_log(args_.thresholds, args_.level_count);
      read_log_levels(plan, step, pv);
      return;
    }
    if (!(codes == "uniform" && pv == "plain") && !(codes == "row" && pv == "row")) {
      unsupported_step(
          step, fmt::format("codes \"{}\" with pv \"{}\"", codes, pv),
          "codes log with pv table, table2 or parity, uniform with plain, row with row");
    }
    for (int32_t code = 0; code < 256; ++code) levels_.even[code] = code;
    if (codes == "row") {
      args_.codes_kind = ProbabilityCodes::kRow;
      return;
    }
    args_.codes_kind = ProbabilityCodes::kUniform;
    args_.pinv = scalar(plan, step, "pinv");
    const int64_t highest = plan.integer(step, "phi");
    expect(1 <= highest && highest <= 255, step, "phi in 1 .. 255", std::to_string(highest));
    args_.phi = static_cast<int32_t>(highest);
  }

  void read_log_levels(const Plan& plan, const Step& step, const std::string& pv) {
    const int count = static_cast<int>(args_.level_count);
    if (pv == "parity") {
      levels_.parity = true;
      levels_.shift = parity_shift(count);
      if (count > 31) unsupported_step(step, std::to_string(count), "at most 31 levels for parity");
      for (int code = 0; code < count; ++code) {
        ParitySums sums;
        parity_accumulate(sums, code, 1, count, levels_.shift);
        levels_.even[code] = static_cast<int32_t>(sums.even);
        levels_.odd[code] = static_cast<int32_t>(sums.odd);
      }
    } else if (pv == "table" || pv == "table2") {
      read_table(plan.tensor(step, "lut"), step, pv == "table" ? DType::kU8 : DType::kU16);
    } else {
      unsupported_step(step, fmt::format("pv \"{}\"", pv),
                       "pv table, table2 or parity for log codes");
    }
    for (const int32_t level : levels_.even) levels_.wide |= level > kMaxNarrowLevel;
    for (const int32_t level : levels_.odd) levels_.wide |= level > kMaxNarrowLevel;
  }

  void read_table(const Tensor& lut, const Step& step, DType dtype) {
    expect(lut.dtype() == dtype && lut.size() == args_.level_count + 1, step,
           fmt::format("tensor \"lut\" of {} {}", args_.level_count + 1, name_of(dtype)),
           fmt::format("{} {}", lut.size(), name_of(lut.dtype())));
    for (int64_t code = 0; code <= args_.level_count; ++code) {
      const auto at = static_cast<size_t>(code);
      levels_.even[at] =
          dtype == DType::kU8 ? int32_t{lut.as<uint8_t>()[at]} : int32_t{lut.as<uint16_t>()[at]};
    }
  }

  const AttentionI8Kernel& row_;
  AttentionI8Args args_;
  AttentionLevels levels_;
  const float *multipliers_ = nullptr, *outputs_ = nullptr;
  bool per_head_ = false, output_per_head_ = false, to_codes_ = false;
  int64_t blocks_ = 0, windows_ = 1;
  const float* bias_ = nullptr;  // planes of [query_rows][key_rows]
  const uint8_t* mask_ = nullptr;
  int64_t bias_window_ = 0, bias_head_ = 0, mask_window_ = 0;  // strides, in planes
};

}  // namespace

std::unique_ptr<StepKernel> make_attention(const Plan& plan, const Step& step, Isa isa) {
  return std::make_unique<AttentionStep>(plan, step, isa);
}

}  // namespace repquant::runtime
