// The boundary between an untrusted file and the executors: what passes here needs no further
// checks.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "repquant/core/fields.h"
#include "repquant/core/format/uniform.h"
#include "repquant/core/plan_verifier.h"

namespace repquant {
namespace plan_checks {

void Verifier::fail(const std::string& expected, const std::string& got) const {
  const std::string subject =
      step_ == nullptr ? "plan" : fmt::format("plan: step \"{}\" ({})", step_->name, step_->op);
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("{}: expected {}, got {}", subject, expected, got));
}

// ---- buffers and their order --------------------------------------------------------------------
void Verifier::buffers() {
  int64_t total = 0;
  for (const Buffer& buffer : plan_.buffers) {
    const std::string name =
        fmt::format("buffer \"{}\" {}", buffer.name, to_string(buffer.item_shape));
    const bool codes = buffer.dtype == DType::kU8;
    require(codes || buffer.dtype == DType::kF32 || buffer.dtype == DType::kI64 ||
                buffer.dtype == DType::kI32,
            "U8, F32, I64 or I32 buffers",
            fmt::format("{} of {}", name, repquant::name_of(buffer.dtype)));
    require(codes ? buffer.bits >= 1 && buffer.bits <= 8
                  : buffer.bits == static_cast<int>(8 * size_of(buffer.dtype)),
            "1 to 8 bits in U8 buffers, those of the type in others",
            fmt::format("{} of {} bits", name, buffer.bits));
    require(!buffer.item_shape.empty() && buffer.item_shape.size() <= 8, "rank 1 to 8", name);
    int64_t count = 1;
    for (const int64_t d : buffer.item_shape) {
      require(d >= 1 && d <= kMaxElements && !__builtin_mul_overflow(count, d, &count) &&
                  count <= kMaxElements,
              "positive sizes of at most 2^31 elements", name);
    }
    total += count;
    require(total <= kMaxElements, "buffers of at most 2^31 elements an item", "more");
  }
}

void Verifier::ends() {
  const auto check = [&](const std::vector<int>& indices, const char* what, bool reals) {
    require(!indices.empty(), fmt::format("at least one {}", what), "none");
    for (const int index : indices) {
      require(index >= 0 && static_cast<size_t>(index) < plan_.buffers.size(),
              fmt::format("the index of a buffer as {}", what), std::to_string(index));
      const DType dtype = plan_.buffers[static_cast<size_t>(index)].dtype;
      require(dtype == DType::kF32 || (!reals && dtype != DType::kU8),
              fmt::format("an {} buffer as {}", reals ? "F32" : "F32, I64 or I32", what),
              std::string(repquant::name_of(dtype)));
    }
  };
  check(plan_.inputs, "input", false);
  check(plan_.outputs, "output", true);
  for (const int index : plan_.inputs) {
    require(!written_[static_cast<size_t>(index)], "distinct inputs", "one twice");
    written_[static_cast<size_t>(index)] = true;
  }
}

void Verifier::step_ends() {
  for (const int index : step_->in) {
    require(index >= 0 && static_cast<size_t>(index) < plan_.buffers.size(),
            "the index of a buffer", std::to_string(index));
    require(written_[static_cast<size_t>(index)], "inputs that were written before",
            fmt::format("buffer {}", index));
  }
  require(step_->out.size() == 1, "one output", std::to_string(step_->out.size()));
  const int index = step_->out[0];
  require(index >= 0 && static_cast<size_t>(index) < plan_.buffers.size(), "the index of a buffer",
          std::to_string(index));
  require(!written_[static_cast<size_t>(index)], "one writer a buffer",
          fmt::format("buffer {} again", index));
}

void Verifier::step_tensors() {
  for (const auto& [role, name] : step_->tensors) {
    require(name == step_->name + "." + role,
            fmt::format("a tensor named \"{}.{}\"", step_->name, role),
            fmt::format("\"{}\"", name));
    const auto found = plan_.tensors.find(name);
    require(found != plan_.tensors.end(), fmt::format("a tensor \"{}\"", name), "none");
    const PlanTensor& tensor = found->second;
    require(tensor.name == name && tensor.role == role, "tensors under their own name and role",
            fmt::format("\"{}\" of role \"{}\"", tensor.name, tensor.role));
    require(role == "w" ? tensor.layout != "plain" : tensor.layout == "plain",
            "packed weights and plain other tensors",
            fmt::format("\"{}\" as {}", name, tensor.layout));
  }
}

// ---- operands -----------------------------------------------------------------------------------
void Verifier::inputs(size_t least, size_t most) const {
  require(
      step_->in.size() >= least && step_->in.size() <= most,
      least == most ? fmt::format("{} inputs", least) : fmt::format("{} to {} inputs", least, most),
      std::to_string(step_->in.size()));
}

void Verifier::type(const Buffer& buffer, DType dtype) const {
  require(buffer.dtype == dtype,
          fmt::format("buffer \"{}\" of {}", buffer.name, repquant::name_of(dtype)),
          std::string(repquant::name_of(buffer.dtype)));
}

void Verifier::shape(const Buffer& buffer, const Shape& expected) const {
  require(buffer.item_shape == expected,
          fmt::format("buffer \"{}\" of shape {}", buffer.name, to_string(expected)),
          to_string(buffer.item_shape));
}

void Verifier::roles(std::initializer_list<const char*> allowed) const {
  for (const auto& [role, name] : step_->tensors) {
    require(std::find(allowed.begin(), allowed.end(), role) != allowed.end(),
            fmt::format("tensors among {}", fmt::join(allowed, ", ")), fmt::format("\"{}\"", role));
  }
}

// Steps that move elements: same type, and codes that fit the target.
void Verifier::copies(const Buffer& from, const Buffer& to) const {
  require(from.dtype == DType::kU8 || from.dtype == DType::kF32, "an input of U8 or F32",
          std::string(repquant::name_of(from.dtype)));
  type(to, from.dtype);
  require(to.bits >= from.bits, fmt::format("an output of at least {} bits", from.bits),
          std::to_string(to.bits));
}

// ---- attributes ---------------------------------------------------------------------------------
int64_t Verifier::integer(const char* key, int64_t low, int64_t high) const {
  const int64_t value = plan_.integer(*step_, key);
  require(value >= low && value <= high, fmt::format("\"{}\" in [{}, {}]", key, low, high),
          std::to_string(value));
  return value;
}

const std::string& Verifier::text(const char* key, const std::vector<std::string>& choices) const {
  const auto found = step_->strings.find(key);
  const std::string expected = fmt::format("\"{}\" one of {}", key, fmt::join(choices, ", "));
  require(found != step_->strings.end(), expected, "none");
  require(std::find(choices.begin(), choices.end(), found->second) != choices.end(), expected,
          fmt::format("\"{}\"", found->second));
  return found->second;
}

const std::vector<int64_t>& Verifier::list(const char* key) const {
  const auto found = step_->lists.find(key);
  require(found != step_->lists.end(), fmt::format("a list \"{}\"", key), "none");
  return found->second;
}

const Tensor& Verifier::tensor(const char* role, DType dtype, const Shape& expected) const {
  const Tensor& found = plan_.tensor(*step_, role);
  require(found.dtype() == dtype && found.shape() == expected,
          fmt::format("\"{}\" {} {}", role, repquant::name_of(dtype), to_string(expected)),
          fmt::format("{} {}", repquant::name_of(found.dtype()), to_string(found.shape())));
  return found;
}

std::span<const float> Verifier::finite(const char* role, const Shape& expected) const {
  const std::span<const float> values = tensor(role, DType::kF32, expected).as<float>();
  for (const float v : values) {
    if (std::isfinite(v)) continue;
    require(false, fmt::format("finite values in \"{}\"", role), fmt::format("{}", v));
  }
  return values;
}

void Verifier::multipliers(const char* role, int64_t count) const {
  for (const float v : finite(role, {count})) {
    if (v >= 0x1p-100f && v <= 0x1p100f) continue;
    require(false, fmt::format("\"{}\" in [2^-100, 2^100]", role), fmt::format("{}", v));
  }
}

void Verifier::head_multipliers(const char* role, int64_t heads) const {
  const Tensor& found = plan_.tensor(*step_, role);
  multipliers(role, found.size() == 1 ? 1 : heads);
}

// "thr": at least one, positive, strictly descending. Returns how many.
int64_t Verifier::thresholds() const {
  const Tensor& found = plan_.tensor(*step_, "thr");
  require(found.rank() == 1 && found.size() >= 1 && found.size() <= 255, "1 to 255 thresholds",
          to_string(found.shape()));
  float before = std::numeric_limits<float>::infinity();
  for (const float v : finite("thr", found.shape())) {
    require(v > 0.0f && v < before, "positive descending thresholds",
            fmt::format("{} after {}", v, before));
    before = v;
  }
  return found.size();
}

// zero, lo, hi of a step that writes codes.
void Verifier::codes_up_to(int64_t highest) const {
  const int64_t lo = integer("lo", 0, highest);
  integer("hi", lo, highest);
  integer("zero", -kMaxZeroPoint, kMaxZeroPoint);
}

// ---- steps --------------------------------------------------------------------------------------
void Verifier::quantize() {
  inputs(1, 1);
  if (step_->strings.contains("kind")) {
    function({"inv", "p"});
  } else {
    roles({"inv"});
  }
  type(in(0), DType::kF32);
  type(out(), DType::kU8);
  shape(out(), in(0).item_shape);
  multipliers("inv", 1);
  output_codes();
}

void Verifier::quantize_log() {
  inputs(1, 1);
  roles({"shift", "thr"});
  type(in(0), DType::kF32);
  type(out(), DType::kU8);
  shape(out(), in(0).item_shape);
  finite("shift", {1});
  const int64_t count = thresholds();
  require(count <= highest_code(out()), fmt::format("at most {} thresholds", highest_code(out())),
          std::to_string(count));
}

void Verifier::table() {
  inputs(1, 1);
  roles({"lut"});
  type(in(0), DType::kU8);
  type(out(), DType::kU8);
  shape(out(), in(0).item_shape);
  table_entries();
}

void Verifier::table_entries() const {
  for (const uint8_t code : tensor("lut", DType::kU8, {256}).as<uint8_t>()) {
    if (code <= highest_code(out())) continue;
    require(false, fmt::format("table entries of {} bits", out().bits), std::to_string(code));
  }
}

void Verifier::dequantize() {
  inputs(1, 1);
  roles({"s"});
  type(in(0), DType::kU8);
  type(out(), DType::kF32);
  shape(out(), in(0).item_shape);
  multipliers("s", 1);
  integer("zero", -kMaxZeroPoint, kMaxZeroPoint);
}

void Verifier::norm() {
  inputs(1, 1);
  roles({"g", "beta", "eps"});
  type(in(0), DType::kF32);
  shape(out(), in(0).item_shape);
  const int64_t channels = plan_.tensor(*step_, "g").size();
  int64_t trailing = 1;
  for (size_t i = in(0).item_shape.size(); i-- > 0 && trailing < channels;)
    trailing *= in(0).item_shape[i];
  require(trailing == channels, "one gain an element of trailing axes", std::to_string(channels));
  finite("g", {channels});
  if (step_->op == "layer_norm" || step_->tensors.contains("beta")) finite("beta", {channels});
  const float eps = finite("eps", {1})[0];
  require(eps > 0.0f, "a positive eps", fmt::format("{}", eps));
  if (out().dtype == DType::kU8) output_codes();
}

void Verifier::add() {
  inputs(1, 2);
  type(in(0), DType::kF32);
  copies(in(0), out());
  shape(out(), in(0).item_shape);
  if (step_->in.size() == 2) {
    roles({});
    type(in(1), DType::kF32);
    shape(in(1), in(0).item_shape);
    return;
  }
  roles({"const"});
  const Tensor& constant = plan_.tensor(*step_, "const");
  const Shape row{in(0).item_shape.back()};
  finite("const", constant.shape() == row ? row : in(0).item_shape);
}

void Verifier::mul() {
  inputs(1, 1);
  add();
}

void Verifier::prepend() {
  inputs(1, 1);
  roles({"const"});
  copies(in(0), out());
  const Tensor& constant = plan_.tensor(*step_, "const");
  const Shape& from = in(0).item_shape;
  require(from.size() == 2 && constant.rank() == 2 && constant.shape()[0] >= 1,
          "items [R, C] and const [P, C]",
          fmt::format("{} and {}", to_string(from), to_string(constant.shape())));
  const Shape front{constant.shape()[0], from[1]};
  shape(out(), {front[0] + from[0], from[1]});
  if (out().dtype == DType::kF32) {
    finite("const", front);
    return;
  }
  for (const uint8_t code : tensor("const", DType::kU8, front).as<uint8_t>()) {
    if (code <= highest_code(out())) continue;
    require(false, fmt::format("codes of {} bits", out().bits), std::to_string(code));
  }
}

void Verifier::slice() {
  inputs(1, 1);
  roles({});
  copies(in(0), out());
  const std::vector<int64_t>& range = list("range");
  require(range.size() == 4, "\"range\" {axis, start, stop, step}",
          fmt::format("{} numbers", range.size()));
  Shape expected = in(0).item_shape;
  require(range[0] >= 0 && range[0] < static_cast<int64_t>(expected.size()), "an axis of the item",
          std::to_string(range[0]));
  int64_t& size = expected[static_cast<size_t>(range[0])];
  require(range[1] >= 0 && range[1] < range[2] && range[2] <= size && range[3] >= 1,
          fmt::format("a range within [0, {}]", size),
          fmt::format("{}:{}:{}", range[1], range[2], range[3]));
  size = (range[2] - range[1] - 1) / range[3] + 1;
  shape(out(), expected);
}

void Verifier::transpose() {
  inputs(1, 1);
  roles({});
  copies(in(0), out());
  const std::vector<int64_t>& dims = list("dims");
  std::vector<int64_t> sorted = list("perm");
  require(!dims.empty() && dims.size() <= 8 && dims.size() == sorted.size(),
          "\"dims\" and \"perm\" of one length up to 8",
          fmt::format("{} and {}", dims.size(), sorted.size()));
  for (const int64_t d : dims)
    require(d >= 1 && d <= kMaxElements, "positive dims", std::to_string(d));
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < sorted.size(); ++i) {
    require(sorted[i] == static_cast<int64_t>(i), "a permutation",
            fmt::format("{}", fmt::join(list("perm"), ",")));
  }
  const int64_t count = element_count(in(0).item_shape);
  require(element_count(dims) == count && element_count(out().item_shape) == count,
          fmt::format("dims and output of {} elements", count),
          fmt::format("{} and {}", to_string(dims), to_string(out().item_shape)));
}

void Verifier::mean_rows() {
  inputs(1, 1);
  roles({});
  type(in(0), DType::kF32);
  copies(in(0), out());
  require(in(0).item_shape.size() >= 2, "items [.., C]", to_string(in(0).item_shape));
  shape(out(), {in(0).item_shape.back()});
}

const std::map<std::string, Verifier::Check>& Verifier::checks() {
  static const std::map<std::string, Check> table = {{"quantize", &Verifier::quantize},
                                                     {"quantize_log", &Verifier::quantize_log},
                                                     {"table", &Verifier::table},
                                                     {"dequantize", &Verifier::dequantize},
                                                     {"linear", &Verifier::linear},
                                                     {"patches", &Verifier::patches},
                                                     {"conv", &Verifier::conv},
                                                     {"depthwise", &Verifier::depthwise},
                                                     {"pad", &Verifier::pad},
                                                     {"attention", &Verifier::attention},
                                                     {"l2_norm", &Verifier::l2_norm},
                                                     {"softmax", &Verifier::softmax},
                                                     {"matmul", &Verifier::matmul},
                                                     {"copy_rows", &Verifier::copy_rows},
                                                     {"layer_norm", &Verifier::norm},
                                                     {"rms_norm", &Verifier::norm},
                                                     {"activation", &Verifier::activation},
                                                     {"binary", &Verifier::binary},
                                                     {"concat", &Verifier::concat},
                                                     {"max_pool", &Verifier::pool},
                                                     {"average_pool", &Verifier::pool},
                                                     {"reduce", &Verifier::reduce},
                                                     {"gather_rows", &Verifier::gather_rows},
                                                     {"cast", &Verifier::cast},
                                                     {"add", &Verifier::add},
                                                     {"mul", &Verifier::mul},
                                                     {"prepend", &Verifier::prepend},
                                                     {"slice", &Verifier::slice},
                                                     {"transpose", &Verifier::transpose},
                                                     {"mean_rows", &Verifier::mean_rows}};
  return table;
}

void Verifier::run() {
  require(plan_.buffers.size() <= kMaxSteps && plan_.steps.size() <= kMaxSteps,
          "at most 1000000 buffers and steps", std::to_string(plan_.steps.size()));
  buffers();
  ends();
  std::set<std::string> names;
  for (const Step& step : plan_.steps) {
    step_ = &step;
    require(!step.name.empty() && names.insert(step.name).second, "distinct step names",
            fmt::format("\"{}\" again", step.name));
    const auto check = checks().find(step.op);
    if (check == checks().end()) {
      std::vector<std::string> known;
      for (const auto& [op, function] : checks()) known.push_back(op);
      throw Error(ErrorCode::kUnsupported, fmt::format("plan: step \"{}\": {}", step.name,
                                                       unknown_name("op", step.op, known)));
    }
    step_ends();
    step_tensors();
    (this->*check->second)();
    written_[static_cast<size_t>(step.out[0])] = true;
  }
  step_ = nullptr;
  for (const int index : plan_.outputs) {
    require(written_[static_cast<size_t>(index)], "outputs that are written",
            fmt::format("buffer {}", index));
  }
}

}  // namespace plan_checks

void verify_plan(const Plan& plan) { plan_checks::Verifier(plan).run(); }

}  // namespace repquant
