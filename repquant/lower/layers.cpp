// Matrix products, norms, activations and element-wise steps.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {
namespace {

double one_over(double x) { return 1.0 / x; }
double negated(double x) { return -x; }

void apply(Tensor& tensor, double (*function)(double)) {
  for (float& v : tensor.as<float>()) v = static_cast<float>(function(static_cast<double>(v)));
}

// numerator / scale in double, rounded once.
std::vector<float> divided(std::span<const float> values, double scale) {
  std::vector<float> result;
  for (const float v : values) result.push_back(static_cast<float>(static_cast<double>(v) / scale));
  return result;
}

// Powers of two: dividing by them is multiplying by their inverses.
bool divides_exactly(const Tensor& divisor) {
  if (divisor.dtype() != DType::kF32) return false;
  const auto values = divisor.as<float>();
  return std::all_of(values.begin(), values.end(), [](float v) {
    int exponent = 0;
    return std::fabs(std::frexp(v, &exponent)) == 0.5f;
  });
}

}  // namespace

// ---- linear -------------------------------------------------------------------------------------

LinearWeights Lowering::layer_weights(NodeId id) const {
  const Node& node = graph_.node(id);
  const Tensor& weight = constant(node.inputs.at(1), node, "weight");
  const bool biased = node.inputs.size() > 2 && node.inputs[2] != kNoValue;
  const Tensor* bias = biased ? &constant(node.inputs[2], node, "bias") : nullptr;
  if (weight.dtype() != DType::kF32 || (biased && bias->dtype() != DType::kF32)) {
    refuse(node, "expected weights in F32");
  }
  if (weight.rank() < 2 || weight.size() == 0) refuse(node, "expected a weight [N, K]");
  if (biased && bias->size() != weight.shape()[0]) refuse(node, "expected one bias an output");
  return quantized_weights(weight, bias, site(id, 1).params, options_.round_weights, quoted(node));
}

void Lowering::emit_linear(NodeId id) {
  if (stays_float(id)) return emit_float_linear(id);
  const Node& node = graph_.node(id);
  const ValueId out = node.outputs[0];
  static_cast<void>(site(id, 0));
  static_cast<void>(site(id, 1));
  Shape item = at(node.inputs[0]).item;
  const Tensor& weight = constant(node.inputs.at(1), node, "weight");
  if (item.empty() || weight.rank() != 2 || weight.shape()[1] != item.back()) {
    refuse(node, fmt::format("weight {} does not fit items {}", to_string(weight.shape()),
                             to_string(item)));
  }
  item.back() = weight.shape()[0];
  const DeferredLinear rows{id, 0, item.back()};
  // Put off: to the add that takes it in, or to the slices that use its rows.
  bool put_off = fused_add_.contains(id);
  if (!put_off && !graph_.is_output(out)) {
    const std::vector<NodeId> readers = graph_.consumers(out);
    put_off = !readers.empty() && std::all_of(readers.begin(), readers.end(), [&](NodeId reader) {
      const OpKind op = graph_.node(reader).op;
      return op == OpKind::kSplit || op == OpKind::kSlice;
    });
  }
  define(out, item);
  if (put_off) {
    at(out).deferred = rows;
  } else {
    emit_rows(rows, out, kNoValue);
  }
}

void Lowering::emit_rows(const DeferredLinear& rows, ValueId to, ValueId residual) {
  const Node& node = graph_.node(rows.node);
  LinearWeights weights = layer_weights(rows.node);
  const int64_t count = rows.end - rows.begin;
  std::string name = node.name;
  if (count != weights.n) {
    const bool third =
        3 * count == weights.n && rows.begin % count == 0;  // q, k and v in one layer
    name += third ? fmt::format(".{}", "qkv"[rows.begin / count]) : fmt::format(".{}", rows.begin);
    weights = rows_of(weights, rows.begin, rows.end);
  }
  const CodeFormat format = site_format(rows.node, 0);
  const int input =
      residual == kNoValue ? code_rows(node.inputs[0], format) : codes(node.inputs[0], format);
  const int added = residual == kNoValue ? -1 : real(residual);
  const Shape item = at(to).item;
  emit_product(weights, input, format, to, item, added, name);
}

void Lowering::emit_product(const LinearWeights& weights, int input, const CodeFormat& format,
                            ValueId to, const Shape& item, int residual, const std::string& name,
                            const ProductForm& form) {
  if (format.per_head()) {
    throw Error(ErrorCode::kUnsupported, "lower: linear \"" + name +
                                             "\": expected one input scale a tensor, "
                                             "got one a head");
  }
  Shape rows = builder_.buffer(input).item_shape;
  rows.back() = weights.n;
  if (form.window) rows = {form.window->rows(rows[0]), form.window->columns(rows[1]), weights.n};
  const Demand wanted = demand(to);
  std::optional<LinearConstants> constants;
  const CodeFormat* out_format = residual < 0 ? wanted.only_codes() : nullptr;
  if (out_format != nullptr) constants = code_constants(weights, format, *out_format);
  const bool asymmetric =
      std::any_of(weights.zw.begin(), weights.zw.end(), [](int32_t z) { return z != 0; });
  std::vector<int> in{input};
  if (residual >= 0) in.push_back(residual);
  const std::string buffer_name = graph_.value(to).name;
  const int out = constants ? builder_.add_buffer(buffer_name, DType::kU8, rows, out_format->bits)
                            : builder_.add_real(buffer_name, rows);
  const char* op = form.depthwise ? "depthwise" : form.window ? "conv" : "linear";
  Step& step = builder_.add_step(op, name, in, out);
  if (form.window) form.window->write(step);
  builder_.add_weights(step, weights.w, weights.n, weights.k, weights.bits);
  if (asymmetric) builder_.add_vector(step, "zw", weights.zw);
  step.ints["za"] = format.zero;
  if (constants) {
    int32_t lo = out_format->lo, hi = out_format->hi;
    if (form.lowest) lo = std::max<int32_t>(lo, encode(*out_format, *form.lowest));
    if (form.highest) hi = std::min<int32_t>(hi, encode(*out_format, *form.highest));
    step.ints.insert({{"zero", out_format->zero}, {"lo", lo}, {"hi", hi}});
    builder_.add_vector(step, "m", constants->m);
    define_codes(to, *out_format, out);
  } else {
    constants = real_constants(weights, format, "linear \"" + name + "\"");
    builder_.add_vector(step, "s", constants->s);
    builder_.add_vector(step, "b", constants->b);
    define_real(to, out);
  }
  builder_.add_vector(step, "c", constants->c);
  at(to).item = item;
}

// ---- norms --------------------------------------------------------------------------------------

// Norms over trailing axes. One over a whole image runs in the order of its buffer, [H, W, C].
void Lowering::emit_norm(NodeId id) {
  const Node& node = graph_.node(id);
  const ValueId from = node.inputs[0], to = node.outputs[0];
  resolve(from);
  const Shape item = at(from).item;
  const auto rank = static_cast<int64_t>(item.size());
  int64_t axis = node.attrs.integer("axis", -1);
  if (axis < 0) axis += rank + 1;
  if (axis < 1 || axis > rank) refuse(node, "expected a norm within an item");
  int64_t width = 1;
  for (int64_t i = axis - 1; i < rank; ++i) width *= item[static_cast<size_t>(i)];
  const bool image = axis == 1 && rank == 3 && channels_first(stored_real(from), item);
  const bool layer = node.op == OpKind::kLayerNorm;
  const auto parameter = [&](size_t i, const std::string& what) {
    const Tensor& tensor = constant(node.inputs.at(i), node, what);
    if (tensor.dtype() != DType::kF32 || tensor.size() != width)
      refuse(node, "expected " + what + " in F32, one an element of the normed axes");
    Tensor values = tensor;
    values.reshape(image ? item : Shape{width});
    return image ? channels_moved_last(values) : values;
  };
  const bool shifted = node.inputs.size() > 2 && node.inputs[2] != kNoValue;
  const Tensor gamma = parameter(1, "gamma");
  const Tensor beta = shifted ? parameter(2, "beta") : Tensor(DType::kF32, {width});
  const Demand wanted = demand(to);
  const CodeFormat* format = wanted.only_codes();
  if (format != nullptr && format->per_head()) format = nullptr;

  const int in = image          ? channels_last(stored_real(from), item, "")
                 : axis == rank ? real_rows(from)
                                : real(from);
  const Shape shape = builder_.buffer(in).item_shape;
  const std::string& name = graph_.value(to).name;
  const int out = format != nullptr ? builder_.add_buffer(name, DType::kU8, shape, format->bits)
                                    : builder_.add_real(name, shape);
  Step& step = builder_.add_step(layer ? "layer_norm" : "rms_norm", node.name, {in}, out);
  const double scale = format != nullptr ? format->step() : 1.0;
  builder_.add_vector(step, "g", divided(gamma.as<float>(), scale));
  if (layer || shifted) builder_.add_vector(step, "beta", divided(beta.as<float>(), scale));
  builder_.add_vector(step, "eps", std::vector<float>{node.attrs.real("epsilon", 1e-5f)});
  const Stored stored{out, image ? channels_first_view(item) : View{}};
  if (format != nullptr) {
    step.ints = {{"zero", format->zero}, {"lo", format->lo}, {"hi", format->hi}};
    define(to, item).codes.push_back({*format, stored});
  } else {
    define(to, item).real = stored;
  }
}

// Groups of channels with their pixels are rows of a norm without parameters; gains and shifts of
// channels follow.
void Lowering::emit_group_norm(NodeId id) {
  const Node& node = graph_.node(id);
  const ValueId from = node.inputs[0], to = node.outputs[0];
  const int in = real(from);
  const Shape item = at(from).item;
  if (item.empty()) refuse(node, "expected items [C, ...]");
  const bool single = node.op == OpKind::kInstanceNorm;
  const int64_t groups = single ? item[0] : node.attrs.integer("num_groups", 1);
  const Tensor &scale = constant(node.inputs.at(1), node, "scale"),
               &shift = constant(node.inputs.at(2), node, "shift");
  if (groups < 1 || item[0] % groups != 0 || scale.dtype() != DType::kF32 ||
      shift.dtype() != DType::kF32 || scale.size() != item[0] || shift.size() != item[0])
    refuse(node, "expected groups that divide the channels and one scale and shift a channel");
  const int64_t width = element_count(item) / groups;
  const std::string& name = graph_.value(to).name;
  // The groups as an axis of their own, so that a row is a group.
  const int rows = builder_.add_real(name + ".groups", {groups, width});
  Step& move = builder_.add_step("transpose", node.name + ".groups", {in}, rows);
  move.lists["dims"] = {groups * width};
  move.lists["perm"] = {0};
  const int normed = builder_.add_real(name + ".normed", {groups, width});
  Step& step = builder_.add_step("layer_norm", node.name, {rows}, normed);
  builder_.add_vector(step, "g", std::vector<float>(static_cast<size_t>(width), 1.0f));
  builder_.add_vector(step, "beta", std::vector<float>(static_cast<size_t>(width), 0.0f));
  builder_.add_vector(step, "eps", std::vector<float>{node.attrs.real("epsilon", 1e-5f)});
  Shape one(item.size(), 1);
  one[0] = item[0];
  int out = builder_.add_real(name + ".image", item);
  Step& back = builder_.add_step("transpose", node.name + ".image", {normed}, out);
  back.lists = {{"dims", {groups * width}}, {"perm", {0}}};
  for (const auto& [kind, values] : {std::pair("mul", &scale), std::pair("add", &shift)}) {
    const int next = builder_.add_real(name, item);
    Step& last = builder_.add_step("binary", node.name + "." + kind, {out}, next);
    last.strings["kind"] = kind;
    Tensor constant_values = *values;
    constant_values.reshape(one);
    builder_.add_tensor(last, "const", std::move(constant_values));
    out = next;
  }
  define_real(to, out);
}

// ---- activations --------------------------------------------------------------------------------

// With a site on the input: one table from its code to each consumer's code. Else f32.
void Lowering::emit_activation(NodeId id) {
  const Node& node = graph_.node(id);
  const Activation activation = *activation_of(node);
  const ValueId from = node.inputs[0], to = node.outputs[0];
  if (values_.contains(to)) return;  // the layer before clamps its codes
  const Shape item = at(from).item;
  const std::string& name = graph_.value(to).name;
  Demand wanted = demand(to);
  define(to, item);
  int source = -1;
  if (plan_.find({id, 0}) != nullptr) {
    const CodeFormat format = site_format(id, 0);
    if (format.kind != CodeFormat::Kind::kUniform || format.per_head()) {
      refuse(node, "expected uniform per-tensor codes at its input");
    }
    const int in = codes(from, format);
    for (const CodeFormat& output : wanted.codes) {
      if (output.per_head()) refuse(node, "per-head codes come from linear layers only");
      const int out = builder_.add_buffer(name + ".codes", DType::kU8, item, output.bits);
      Step& step = builder_.add_step("table", node.name, {in}, out);
      builder_.add_vector(step, "lut", code_table(format, activation.function, output));
      at(to).codes.push_back({output, Stored{out, {}}});
    }
    if (!wanted.real) return;
    // Float readers see the function of the dequantized code.
    source = builder_.add_real(name + ".in", item);
    Step& step = builder_.add_step("dequantize", node.name + ".in", {in}, source);
    step.ints["zero"] = format.zero;
    builder_.add_vector(step, "s", format.scale);
  }
  View view;
  if (source < 0) {
    const Stored stored = stored_real(from);
    source = stored.buffer;
    view = stored.view;
  }
  at(to).function = DeferredFunction{node.name, {source, view}, activation};
}

// ---- element-wise -------------------------------------------------------------------------------

// Whether a constant operand leaves the variable's shape, and the variable is no image, whose
// order [H, W, C] the constant would have to follow.
bool Lowering::keeps_shape(const Node& node, ValueId variable) {
  resolve(variable);
  const Shape item = at(variable).item;
  return item == item_shape(node.outputs[0]) && !item.empty() &&
         !channels_first(stored_real(variable), item);
}

void Lowering::emit_add(NodeId id) {
  const Node& node = graph_.node(id);
  const ValueId a = node.inputs.at(0), b = node.inputs.at(1), to = node.outputs[0];
  for (const auto& [linear, add] : fused_add_) {
    if (add != id) continue;
    const ValueId product = graph_.node(linear).outputs[0], other = product == a ? b : a;
    if (at(product).item != at(other).item) break;  // made by real() below
    const DeferredLinear rows = *at(product).deferred;
    define(to, at(product).item);
    if (graph_.node(rows.node).op == OpKind::kConv)
      return emit_convolution(rows.node, {to, {}}, other);
    return emit_rows(rows, to, other);
  }
  if (graph_.is_constant(a) || graph_.is_constant(b)) {
    const bool second = graph_.is_constant(b);
    if ((node.op == OpKind::kSub && !second) || !keeps_shape(node, second ? a : b))
      return emit_binary(id);
    const int in = real(second ? a : b);
    Tensor value = item_constant(second ? b : a, builder_.buffer(in).item_shape, node);
    if (node.op == OpKind::kSub) apply(value, negated);
    const int out = builder_.add_real(graph_.value(to).name, builder_.buffer(in).item_shape);
    builder_.add_tensor(builder_.add_step("add", node.name, {in}, out), "const", std::move(value));
    return define_real(to, out);
  }
  if (node.op == OpKind::kSub || at(a).item != at(b).item) return emit_binary(id);
  const Shape item = at(a).item;
  std::vector<int> in{stored_real(a).buffer, stored_real(b).buffer};
  View view = stored_real(a).view;
  if (view != stored_real(b).view ||
      builder_.buffer(in[0]).item_shape != builder_.buffer(in[1]).item_shape) {
    if (channels_first(stored_real(a), item) || channels_first(stored_real(b), item)) {
      const std::string& name = graph_.value(to).name;
      in = {channels_last(stored_real(a), item, name + ".a"),
            channels_last(stored_real(b), item, name + ".b")};
      view = channels_first_view(item);
    } else {
      in = {real(a), real(b)};
      view = {};
    }
  }
  const int out = builder_.add_real(graph_.value(to).name, builder_.buffer(in[0]).item_shape);
  builder_.add_step("add", node.name, in, out);
  define(to, item).real = Stored{out, view};
}

void Lowering::emit_multiply(NodeId id) {
  const Node& node = graph_.node(id);
  const ValueId a = node.inputs.at(0), b = node.inputs.at(1), to = node.outputs[0];
  const bool second = graph_.is_constant(b);
  const bool constant_operand = second || graph_.is_constant(a);
  if (!constant_operand || (node.op == OpKind::kDiv && !second) ||
      !keeps_shape(node, second ? a : b))
    return emit_binary(id);
  if (node.op == OpKind::kDiv && !divides_exactly(constant(b, node, "divisor")))
    return emit_binary(id);
  const int in = real(second ? a : b);
  Tensor factor = item_constant(second ? b : a, builder_.buffer(in).item_shape, node);
  if (node.op == OpKind::kDiv) apply(factor, one_over);
  const int out = builder_.add_real(graph_.value(to).name, builder_.buffer(in).item_shape);
  builder_.add_tensor(builder_.add_step("mul", node.name, {in}, out), "const", std::move(factor));
  define_real(to, out);
}

void Lowering::emit_mean(NodeId id) {
  const Node& node = graph_.node(id);
  const Shape item = at(node.inputs[0]).item;
  std::vector<int64_t> axes = node.attrs.integers("axes");
  if (node.inputs.size() > 1 && node.inputs[1] != kNoValue) {
    axes = constant_integers(node.inputs[1], node, "axes");
  }
  std::sort(axes.begin(), axes.end());
  const bool over_image = item.size() == 3 && (axes == std::vector<int64_t>{2, 3} ||
                                               axes == std::vector<int64_t>{-2, -1});
  if (over_image && node.attrs.integer("keepdims", 1) != 0) return emit_reduce(id);
  if (over_image) {
    const ValueId from = node.inputs[0];
    const int in = channels_last(stored_real(from), item, graph_.value(from).name + ".moved");
    const int out = builder_.add_real(graph_.value(node.outputs[0]).name, {item[0]});
    builder_.add_step("mean_rows", node.name, {in}, out);
    return define_real(node.outputs[0], out);
  }
  if (item.size() != 2 || axes.size() != 1 || (axes[0] != 1 && axes[0] != -2))
    return emit_reduce(id);
  const int in = real(node.inputs[0]);
  const int out = builder_.add_real(graph_.value(node.outputs[0]).name, {item[1]});
  builder_.add_step("mean_rows", node.name, {in}, out);
  define_real(node.outputs[0], out);
  if (node.attrs.integer("keepdims", 1) != 0) at(node.outputs[0]).item = {1, item[1]};
}

}  // namespace repquant::lowering
