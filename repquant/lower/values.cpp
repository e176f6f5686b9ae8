// Values of the graph as buffers: in f32, as codes of some format, or as constants.
#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/format/uniform.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {

Lowered& Lowering::at(ValueId value) {
  const auto it = values_.find(value);
  if (it == values_.end()) {
    throw Error(ErrorCode::kInternal,
                "lower: value \"" + graph_.value(value).name + "\" has no definition yet");
  }
  return it->second;
}

Shape Lowering::item_shape(ValueId value) const {
  const auto known = values_.find(value);
  if (known != values_.end()) return known->second.item;
  const Value& v = graph_.value(value);
  const auto refuse_shape = [&](const std::string& got) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("lower: value \"{}\": expected a shape [batch, known sizes], "
                            "got {}",
                            v.name, got));
  };
  if (!v.shape) refuse_shape("none");
  if (v.shape->empty()) refuse_shape(to_string(*v.shape));
  Shape item;
  for (size_t i = 1; i < v.shape->size(); ++i) {
    if (!(*v.shape)[i].known()) refuse_shape(to_string(*v.shape));
    item.push_back((*v.shape)[i].size);
  }
  return item;
}

const Assignment& Lowering::site(NodeId node, int input) const {
  const Assignment* found = plan_.find({node, input});
  if (found != nullptr) return *found;
  const std::string what =
      input == kProbabilities ? "the probabilities" : fmt::format("input {}", input);
  refuse(
      graph_.node(node), what + " have no quantization; products run in integers only",
      "give the layer bits instead of excluding it (8 is the widest), or evaluate by simulation");
}

CodeFormat Lowering::site_format(NodeId node, int input) const {
  return code_format(site(node, input).params,
                     fmt::format("{} input {}", quoted(graph_.node(node)), input));
}

Lowered& Lowering::define(ValueId value, Shape item) {
  Lowered& lowered = values_[value];
  lowered.item = std::move(item);
  return lowered;
}

void Lowering::define_real(ValueId value, int buffer) {
  define(value, builder_.buffer(buffer).item_shape).real = Stored{buffer, {}};
}

void Lowering::define_codes(ValueId value, const CodeFormat& format, int buffer) {
  define(value, builder_.buffer(buffer).item_shape).codes.push_back({format, Stored{buffer, {}}});
}

int Lowering::materialize(Stored& stored, const Shape& wanted, const std::string& name) {
  const Shape item = wanted.empty() ? Shape{1} : wanted;
  const Buffer source = builder_.buffer(stored.buffer);
  if (stored.view.identity() && source.item_shape == item) return stored.buffer;
  View view = stored.view;
  if (view.rows != nullptr) {
    const int out = builder_.add_buffer(name, source.dtype, item, source.bits);
    Step& step = builder_.add_step("copy_rows", name, {stored.buffer}, out);
    step.ints["width"] = view.width;
    builder_.add_vector(step, "index", *view.rows);
    stored = {out, {}};
    return out;
  }
  if (view.identity()) {
    view.dims = source.item_shape;
    view.perm.resize(view.dims.size());
    std::iota(view.perm.begin(), view.perm.end(), 0);
  }
  const int out = builder_.add_buffer(name, source.dtype, item, source.bits);
  Step& step = builder_.add_step("transpose", name, {stored.buffer}, out);
  step.lists["dims"] = view.dims;
  step.lists["perm"] = {view.perm.begin(), view.perm.end()};
  stored = {out, {}};
  return out;
}

void Lowering::resolve(ValueId value) {
  Lowered& lowered = at(value);
  if (lowered.function && !lowered.real) {
    const DeferredFunction put_off = *lowered.function;
    const int out = add_function(put_off.source.buffer, put_off.function, put_off.name,
                                 graph_.value(value).name);
    lowered.real = Stored{out, put_off.source.view};
  }
  if (!lowered.deferred) return;
  const DeferredLinear rows = *lowered.deferred;
  lowered.deferred.reset();
  if (graph_.node(rows.node).op == OpKind::kConv)
    return emit_convolution(rows.node, {value, {}}, kNoValue);
  emit_rows(rows, value, kNoValue);
}

Stored& Lowering::stored_real(ValueId value) {
  resolve(value);
  Lowered& lowered = at(value);
  if (lowered.real) return *lowered.real;
  const std::string& name = graph_.value(value).name;
  if (lowered.codes.empty() || lowered.codes[0].first.kind != CodeFormat::Kind::kUniform ||
      lowered.codes[0].first.per_head()) {
    throw Error(ErrorCode::kInternal, "lower: value \"" + name + "\" does not exist in f32");
  }
  const auto& [format, stored] = lowered.codes[0];
  const int out = builder_.add_real(name + ".real", builder_.buffer(stored.buffer).item_shape);
  Step& step = builder_.add_step("dequantize", name + ".real", {stored.buffer}, out);
  step.ints["zero"] = format.zero;
  builder_.add_vector(step, "s", format.scale);
  lowered.real = Stored{out, stored.view};
  return *lowered.real;
}

int Lowering::real(ValueId value) {
  Stored& stored = stored_real(value);
  return materialize(stored, at(value).item, graph_.value(value).name + ".moved");
}

// Codes of a function that was put off, without its f32 values.
Stored& Lowering::function_codes(ValueId value, const CodeFormat& format) {
  Lowered& lowered = at(value);
  for (auto& [existing, stored] : lowered.codes) {
    if (existing == format) return stored;
  }
  const DeferredFunction& put_off = *lowered.function;
  const int out = quantize(put_off.source.buffer, format, graph_.value(value).name + ".codes",
                           &put_off.function);
  lowered.codes.push_back({format, Stored{out, put_off.source.view}});
  return lowered.codes.back().second;
}

Stored& Lowering::stored_codes(ValueId value, const CodeFormat& format) {
  const Lowered& lowered = at(value);
  const bool uniform = format.kind == CodeFormat::Kind::kUniform && !format.per_head();
  if (lowered.function && !lowered.real && uniform && !demand(value).real)
    return function_codes(value, format);
  resolve(value);
  for (auto& [existing, stored] : at(value).codes) {
    if (existing == format) return stored;
  }
  const Stored real = stored_real(value);
  const int out = quantize(real.buffer, format, graph_.value(value).name + ".codes");
  at(value).codes.push_back({format, Stored{out, real.view}});
  return at(value).codes.back().second;
}

int Lowering::codes(ValueId value, const CodeFormat& format) {
  Stored& stored = stored_codes(value, format);
  return materialize(stored, at(value).item, graph_.value(value).name + ".codes");
}

bool Lowering::channels_first(const Stored& stored, const Shape& item) const {
  return item.size() == 3 &&
         builder_.buffer(stored.buffer).item_shape == Shape{item[1], item[2], item[0]} &&
         stored.view == channels_first_view(item);
}

View Lowering::channels_first_view(const Shape& item) {
  if (item[0] == 1 || item[1] * item[2] == 1) return {};
  return {{item[1] * item[2], item[0]}, {1, 0}};
}

int Lowering::channels_last(Stored stored, const Shape& item, const std::string& name) {
  const Shape last{item[1], item[2], item[0]};
  if (channels_first(stored, item)) return stored.buffer;
  auto view = transposed(stored.view, item, {1, 2, 0});
  if (!view) {
    materialize(stored, item, name);
    view = transposed(stored.view, item, {1, 2, 0});
  }
  REPQUANT_CHECK(view.has_value());
  stored.view = *view;
  return materialize(stored, last, name);
}

int Lowering::quantize(int buffer, const CodeFormat& format, const std::string& name,
                       const Activation* function) {
  const Shape item = builder_.buffer(buffer).item_shape;
  const int out = builder_.add_buffer(name, DType::kU8, item, format.bits);
  if (format.per_head()) {
    throw Error(ErrorCode::kUnsupported,
                "lower: \"" + name + "\": per-head codes come from linear layers only");
  }
  if (format.kind == CodeFormat::Kind::kUniform) {
    Step& step = builder_.add_step("quantize", name, {buffer}, out);
    step.ints = {{"zero", format.zero}, {"lo", format.lo}, {"hi", format.hi}};
    builder_.add_vector(step, "inv", std::vector<float>{inverse_scale(format.scale[0])});
    if (function == nullptr) return out;
    step.strings["kind"] = function->kind;
    if (!function->parameters.empty()) builder_.add_vector(step, "p", function->parameters);
    return out;
  }
  const int raw = builder_.add_buffer(name + ".log", DType::kU8, item, format.log_bits);
  Step& step = builder_.add_step("quantize_log", name + ".log", {buffer}, raw);
  builder_.add_vector(step, "shift", std::vector<float>{static_cast<float>(format.shift)});
  const LogTable log = log_table(format);
  builder_.add_vector(step, "thr", log.thresholds);
  std::vector<uint8_t> table(log.levels.begin(), log.levels.end());
  table.resize(256, 0);
  builder_.add_vector(builder_.add_step("table", name, {raw}, out), "lut", table);
  return out;
}

const Tensor& Lowering::constant(ValueId value, const Node& node, const std::string& what) const {
  if (value == kNoValue || !graph_.is_constant(value)) refuse(node, "expected a constant " + what);
  return *graph_.value(value).constant;
}

std::vector<int64_t> Lowering::constant_integers(ValueId value, const Node& node,
                                                 const std::string& what) const {
  const Tensor& tensor = constant(value, node, what);
  std::vector<int64_t> result;
  if (tensor.dtype() == DType::kI64) {
    for (const int64_t v : tensor.as<int64_t>()) result.push_back(v);
  } else if (tensor.dtype() == DType::kI32) {
    for (const int32_t v : tensor.as<int32_t>()) result.push_back(v);
  } else {
    refuse(node, "expected integers as " + what);
  }
  return result;
}

Tensor Lowering::item_constant(ValueId value, const Shape& item, const Node& node) const {
  const Tensor& tensor = constant(value, node, "operand");
  if (tensor.dtype() != DType::kF32) refuse(node, "expected a constant in F32");
  Shape from = tensor.shape();
  const auto mismatch = [&] {
    refuse(node, fmt::format("constant of shape {} does not broadcast to items of shape {}",
                             to_string(tensor.shape()), to_string(item)));
  };
  while (from.size() > item.size()) {
    if (from[0] != 1) mismatch();
    from.erase(from.begin());
  }
  from.insert(from.begin(), item.size() - from.size(), 1);
  bool one_row = true;
  for (size_t i = 0; i < item.size(); ++i) {
    if (from[i] != 1 && from[i] != item[i]) mismatch();
    if (i + 1 < item.size() && from[i] != 1) one_row = false;
  }
  const Shape target = one_row ? Shape{item.empty() ? 1 : item.back()} : item;
  if (one_row) from = {from.empty() ? 1 : from.back()};
  Tensor result(DType::kF32, target);
  const auto in = tensor.as<float>();
  auto out = result.as<float>();
  for (int64_t i = 0; i < result.size(); ++i) {
    int64_t rest = i, offset = 0, stride = 1;
    for (size_t axis = target.size(); axis-- > 0;) {
      offset += from[axis] == 1 ? 0 : stride * (rest % target[axis]);
      stride *= from[axis];
      rest /= target[axis];
    }
    out[static_cast<size_t>(i)] = in[static_cast<size_t>(offset)];
  }
  return result;
}

}  // namespace repquant::lowering
