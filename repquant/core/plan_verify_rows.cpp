// Checks of attention, and of the f32 steps that work row by row.
#include <cmath>

#include <fmt/format.h>

#include "repquant/core/format/log.h"
#include "repquant/core/plan_verifier.h"

namespace repquant::plan_checks {

void Verifier::attention() {
  inputs(3, 3);
  roles({"m", "thr", "lut", "pinv", "mo", "bias", "mask"});
  for (size_t i = 0; i < 3; ++i) {
    type(in(i), DType::kU8);
    shape(in(i), in(0).item_shape);
  }
  shape(out(), in(0).item_shape);
  const Shape& item = in(0).item_shape;
  require(item.size() == 2 || item.size() == 3, "items [T, heads*d] or [W, T, heads*d]",
          to_string(item));
  const int64_t tokens = item[item.size() - 2], width = item.back();
  require(tokens <= (int64_t{1} << 15), "at most 32768 tokens", std::to_string(tokens));
  const int64_t heads = integer("heads", 1, width);
  require(width % heads == 0, fmt::format("heads that divide {}", width), std::to_string(heads));
  const int64_t q = largest_distance(in(0), integer("zq", -kMaxZeroPoint, kMaxZeroPoint));
  const int64_t k = largest_distance(in(1), integer("zk", -kMaxZeroPoint, kMaxZeroPoint));
  const int64_t v = largest_distance(in(2), integer("zv", -kMaxZeroPoint, kMaxZeroPoint));
  int64_t bound = 0;
  require(!__builtin_mul_overflow(q * k, width / heads, &bound) && bound <= kInt32Max,
          "scores within int32", "codes that can exceed it");
  head_multipliers("m", heads);
  head_multipliers("mo", heads);
  attention_codes(tokens, v);
  attention_terms(item.size() == 3 ? item[0] : 1, tokens, heads);
  if (out().dtype == DType::kU8) output_codes();
}

// What is added to scores, and which keys are left out.
void Verifier::attention_terms(int64_t windows, int64_t tokens, int64_t heads) {
  if (step_->tensors.contains("bias")) {
    const Shape& found = plan_.tensor(*step_, "bias").shape();
    require(found.size() == 4 && (found[0] == 1 || found[0] == windows) &&
                (found[1] == 1 || found[1] == heads),
            fmt::format("\"bias\" [1 or {}, 1 or {}, {}, {}]", windows, heads, tokens, tokens),
            to_string(found));
    finite("bias", {found[0], found[1], tokens, tokens});
  }
  if (!step_->tensors.contains("mask")) return;
  const Shape& found = plan_.tensor(*step_, "mask").shape();
  require(found.size() == 3 && (found[0] == 1 || found[0] == windows),
          fmt::format("\"mask\" [1 or {}, {}, {}]", windows, tokens, tokens), to_string(found));
  for (const uint8_t keep : tensor("mask", DType::kU8, {found[0], tokens, tokens}).as<uint8_t>()) {
    if (keep <= 1) continue;
    require(false, "0 or 1 in \"mask\"", std::to_string(keep));
  }
}

// The kind of softmax codes, and sums of level*(v - zv) below 2^53, exact in int64 and in double.
void Verifier::attention_codes(int64_t tokens, int64_t largest_value) {
  const std::string& codes = text("codes", {"log", "uniform", "row"});
  int64_t level = 255;
  if (codes == "log") {
    const int64_t count = thresholds();
    const std::string& pv = text("pv", {"table", "table2", "parity"});
    if (pv == "table") {
      require(tensor("lut", DType::kU8, {count + 1}).as<uint8_t>().back() == 0,
              "0 as last table entry", "another");
    } else if (pv == "table2") {
      require(tensor("lut", DType::kU16, {count + 1}).as<uint16_t>().back() == 0,
              "0 as last table entry", "another");
      level = 65535;
    } else {
      require(count <= 31, "at most 31 thresholds for parity sums", std::to_string(count));
      level = int64_t{1} << parity_shift(static_cast<int>(count));
    }
  } else if (codes == "uniform") {
    text("pv", {"plain"});
    multipliers("pinv", 1);
    level = integer("phi", 1, 255);
  } else {
    text("pv", {"row"});
  }
  require(tokens * level <= (int64_t{1} << 53) / largest_value, "weighted sums below 2^53",
          "codes that can exceed it");
}

void Verifier::l2_norm() {
  inputs(1, 1);
  roles({"eps"});
  const int64_t channels = in(0).item_shape.back(), width = integer("width", 1, channels);
  require(channels % width == 0, fmt::format("a width that divides {}", channels),
          std::to_string(width));
  type(in(0), DType::kF32);
  type(out(), DType::kF32);
  shape(out(), in(0).item_shape);
  const float eps = finite("eps", {1})[0];
  require(eps > 0.0f, "a positive eps", fmt::format("{}", eps));
}

void Verifier::softmax() {
  inputs(1, 1);
  roles({});
  type(in(0), DType::kF32);
  type(out(), DType::kF32);
  shape(out(), in(0).item_shape);
}

void Verifier::matmul() {
  inputs(1, 2);
  type(in(0), DType::kF32);
  type(out(), DType::kF32);
  Shape result = in(0).item_shape;
  const int64_t depth = result.back();
  if (step_->in.size() == 1) {
    roles({"weight", "b"});
    const Tensor& weight = plan_.tensor(*step_, "weight");
    require(weight.rank() == 2 && weight.shape()[0] == depth && weight.shape()[1] >= 1,
            fmt::format("\"weight\" [{}, N]", depth), to_string(weight.shape()));
    const int64_t columns = weight.shape()[1];
    finite("weight", {depth, columns});
    if (step_->tensors.contains("b")) finite("b", {columns});
    result.back() = columns;
    return shape(out(), result);
  }
  roles({});
  type(in(1), DType::kF32);
  const Shape& right = in(1).item_shape;
  require(result.size() >= 2 && right.size() == result.size(), "operands [.., M, K] and [.., K, N]",
          fmt::format("{} and {}", to_string(result), to_string(right)));
  Shape wanted = result;
  wanted[wanted.size() - 2] = depth;
  wanted.back() = right.back();
  shape(in(1), wanted);
  result.back() = right.back();
  shape(out(), result);
}

void Verifier::copy_rows() {
  inputs(1, 1);
  roles({"index"});
  copies(in(0), out());
  const int64_t from = element_count(in(0).item_shape), to = element_count(out().item_shape);
  const int64_t width = integer("width", 1, from), rows = from / width;
  require(from % width == 0 && to % width == 0, fmt::format("rows of {} elements", width),
          fmt::format("{} and {} elements", from, to));
  for (const int32_t row :
       tensor("index", DType::kI32, {to / width}).as<int32_t>()) {
    if (row >= 0 && row < rows) continue;
    require(false, fmt::format("indices in [0, {})", rows), std::to_string(row));
  }
}

}  // namespace repquant::plan_checks
