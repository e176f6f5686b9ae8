// Float layers between the integer ones: functions, broadcast operations, reductions, lookups.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/format/functions.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {
namespace {

std::optional<BinaryKind> binary_of(OpKind op) {
  switch (op) {
    case OpKind::kAdd:
      return BinaryKind::kAdd;
    case OpKind::kSub:
      return BinaryKind::kSub;
    case OpKind::kMul:
      return BinaryKind::kMul;
    case OpKind::kDiv:
      return BinaryKind::kDiv;
    case OpKind::kMax:
      return BinaryKind::kMax;
    case OpKind::kMin:
      return BinaryKind::kMin;
    default:
      return std::nullopt;
  }
}

BinaryKind reversed(BinaryKind kind) {
  if (kind == BinaryKind::kSub) return BinaryKind::kReverseSub;
  return kind == BinaryKind::kDiv ? BinaryKind::kReverseDiv : kind;
}

std::optional<ReduceKind> reduction_of(OpKind op) {
  switch (op) {
    case OpKind::kReduceMean:
    case OpKind::kGlobalAveragePool:
      return ReduceKind::kMean;
    case OpKind::kReduceSum:
      return ReduceKind::kSum;
    case OpKind::kReduceMax:
    case OpKind::kGlobalMaxPool:
      return ReduceKind::kMax;
    case OpKind::kReduceMin:
      return ReduceKind::kMin;
    case OpKind::kReduceL2:
      return ReduceKind::kL2;
    case OpKind::kReduceSumSquare:
      return ReduceKind::kSumSquare;
    default:
      return std::nullopt;
  }
}

// The shape with ones in front, to `rank`.
Shape aligned(const Shape& shape, size_t rank) {
  Shape result(rank - shape.size(), 1);
  result.insert(result.end(), shape.begin(), shape.end());
  return result;
}

}  // namespace

Tensor channels_moved_last(const Tensor& tensor) {  // [C, H, W] -> [H, W, C]
  const Shape& s = tensor.shape();
  Tensor result(DType::kF32, {s[1], s[2], s[0]});
  const auto in = tensor.as<float>();
  auto out = result.as<float>();
  for (int64_t c = 0; c < s[0]; ++c)
    for (int64_t i = 0; i < s[1] * s[2]; ++i)
      out[static_cast<size_t>(i * s[0] + c)] = in[static_cast<size_t>(c * s[1] * s[2] + i)];
  return result;
}

bool is_reduction(OpKind op) { return reduction_of(op).has_value(); }

// The operand of a broadcast operation: an item shape for the variable, f32 without its batch axis
// for the constant.
Tensor Lowering::broadcast_constant(ValueId value, size_t rank, const Node& node) const {
  Tensor tensor = constant(value, node, "operand");
  if (tensor.dtype() != DType::kF32) refuse(node, "expected a constant in F32");
  Shape shape = tensor.shape();
  while (shape.size() > rank) {
    if (shape[0] != 1)
      refuse(node, fmt::format("constant of shape {} differs along the batch", to_string(shape)));
    shape.erase(shape.begin());
  }
  tensor.reshape(aligned(shape, rank));
  return tensor;
}

void Lowering::emit_binary(NodeId id) {
  const Node& node = graph_.node(id);
  if (node.inputs.size() != 2) refuse(node, "expected two operands");
  BinaryKind kind = *binary_of(node.op);
  ValueId a = node.inputs[0], b = node.inputs[1];
  const auto constant_operand = [&](ValueId v) { return graph_.is_constant(v); };
  if (constant_operand(a)) {
    std::swap(a, b);
    kind = reversed(kind);
  }
  const bool variable = !constant_operand(b);
  resolve(a);
  if (variable) resolve(b);
  if (at(a).constant || (variable && at(b).constant))
    refuse(node, "expected constants to be folded");
  const ValueId to = node.outputs[0];
  const Shape item = item_shape(to);
  const size_t rank = std::max<size_t>(item.size(), 1);
  // An operand of lower rank than the result lies against its last axes, batch included: only an
  // operand of full rank, or one without any axes, keeps its batch in place.
  for (const ValueId v : {a, b}) {
    if (constant_operand(v) || at(v).item.size() == item.size()) continue;
    refuse(node, fmt::format("items {} and {} do not broadcast item by item", to_string(at(v).item),
                             to_string(item)));
  }
  const auto is_image = [&](ValueId v) {
    return !constant_operand(v) && item.size() == 3 && element_count(at(v).item) > 1 &&
           channels_first(stored_real(v), at(v).item);
  };
  const bool image = is_image(a) || is_image(b);
  const auto operand = [&](ValueId v) {
    if (!image) return real(v);
    return channels_last(stored_real(v), at(v).item, graph_.value(v).name + ".moved");
  };
  std::vector<int> in{operand(a)};
  if (variable) in.push_back(operand(b));
  Shape shape = item.empty() ? Shape{1} : item;
  if (image) shape = {item[1], item[2], item[0]};
  const int out = builder_.add_real(graph_.value(to).name, shape);
  Step& step = builder_.add_step("binary", node.name, in, out);
  step.strings["kind"] = kBinaryNames[static_cast<size_t>(kind)];
  if (!variable) {
    Tensor value = broadcast_constant(b, rank, node);
    builder_.add_tensor(step, "const", image ? channels_moved_last(value) : std::move(value));
  }
  define(to, item).real = Stored{out, image ? channels_first_view(item) : View{}};
}

// ---- functions ----------------------------------------------------------------------------------

int Lowering::add_function(int source, const Activation& function, const std::string& name,
                           const std::string& buffer) {
  const int out = builder_.add_real(buffer, builder_.buffer(source).item_shape);
  Step& step = builder_.add_step("activation", name, {source}, out);
  step.strings["kind"] = function.kind;
  if (!function.parameters.empty()) builder_.add_vector(step, "p", function.parameters);
  return out;
}

// Powers with a constant exponent that one IEEE operation or two give.
void Lowering::emit_pow(const Node& node) {
  const Tensor& exponent = constant(node.inputs.at(1), node, "exponent");
  double e = 0;
  if (exponent.dtype() == DType::kF32 && exponent.size() == 1)
    e = static_cast<double>(exponent.as<float>()[0]);
  const ValueId to = node.outputs[0];
  const std::string& name = graph_.value(to).name;
  if (e == 1.0) return emit_alias(node);
  const Stored source = stored_real(node.inputs[0]);
  const Shape item = at(node.inputs[0]).item;
  const std::map<double, Activation> powers = {{2.0, {"square", {}, {}}},
                                               {3.0, {"square", {}, {}}},
                                               {0.5, {"sqrt", {}, {}}},
                                               {-1.0, {"reciprocal", {}, {}}},
                                               {-0.5, {"rsqrt", {}, {}}}};
  const auto power = powers.find(e);
  if (power == powers.end())
    refuse(node, "expected one of the exponents 1, 2, 3, 1/2, -1/2 and -1, constant");
  int out = add_function(source.buffer, power->second, node.name, name);
  if (e == 3.0) {
    const int square = out;
    out = builder_.add_real(name, builder_.buffer(square).item_shape);
    builder_.add_step("binary", node.name, {square, source.buffer}, out).strings["kind"] = "mul";
  }
  define(to, item).real = Stored{out, source.view};
}

// ---- reductions ---------------------------------------------------------------------------------

void Lowering::emit_reduce(NodeId id) {
  const Node& node = graph_.node(id);
  const ValueId from = node.inputs[0], to = node.outputs[0];
  resolve(from);
  const Shape item = at(from).item;
  const auto rank = static_cast<int64_t>(item.size());
  const bool pool = node.op == OpKind::kGlobalAveragePool || node.op == OpKind::kGlobalMaxPool;
  std::vector<int64_t> axes = node.attrs.integers("axes");
  if (node.inputs.size() > 1 && node.inputs[1] != kNoValue)
    axes = constant_integers(node.inputs[1], node, "axes");
  if (pool)
    for (int64_t axis = 2; axis <= rank; ++axis) axes.push_back(axis);
  std::vector<bool> reduced(item.size(), false);
  for (int64_t axis : axes) {
    if (axis < 0) axis += rank + 1;
    if (axis < 1 || axis > rank) refuse(node, "reduces the batch");
    reduced[static_cast<size_t>(axis) - 1] = true;
  }
  if (axes.empty()) refuse(node, "reduces the batch");
  const bool keep = pool || node.attrs.integer("keepdims", 1) != 0;
  Shape result;
  for (size_t i = 0; i < item.size(); ++i) {
    if (!reduced[i]) result.push_back(item[i]);
    else if (keep) result.push_back(1);
  }
  const bool image = channels_first(stored_real(from), item);
  // The buffer's axes: [H, W, C] for images; else the reduced ones moved to the end unless they
  // are neighbours.
  std::vector<int> order(item.size());
  std::iota(order.begin(), order.end(), 0);
  if (image) order = {1, 2, 0};
  const auto is_reduced = [&](int axis) { return reduced[static_cast<size_t>(axis)]; };
  auto first = std::find_if(order.begin(), order.end(), is_reduced);
  auto last = std::find_if(order.rbegin(), order.rend(), is_reduced).base();
  int in = -1;
  if (std::all_of(first, last, is_reduced)) {
    in = image ? channels_last(stored_real(from), item, "") : real(from);
  } else {
    std::iota(order.begin(), order.end(), 0);
    std::stable_partition(order.begin(), order.end(), [&](int axis) { return !is_reduced(axis); });
    first = std::find_if(order.begin(), order.end(), is_reduced), last = order.end();
    in = permuted(from, order, graph_.value(from).name + ".moved");
  }
  Shape shape;
  for (const int axis : order) {
    if (!is_reduced(axis)) shape.push_back(item[static_cast<size_t>(axis)]);
  }
  if (shape.empty()) shape = {1};
  if (image && keep && reduced[1] && reduced[2] && !reduced[0]) shape = {1, 1, item[0]};
  const int out = builder_.add_real(graph_.value(to).name, shape);
  Step& step = builder_.add_step("reduce", node.name, {in}, out);
  step.strings["kind"] = kReduceNames[static_cast<size_t>(*reduction_of(node.op))];
  step.lists["axes"] = {first - order.begin(), last - order.begin() - 1};
  // Kept axes of an image stay in the order [H, W, C] without the reduced ones.
  View view;
  if (image && shape.size() == 2 && reduced[1] != reduced[2]) view = {shape, {1, 0}};
  if (view.dims.size() == 2 && (shape[0] == 1 || shape[1] == 1)) view = {};
  define(to, result).real = Stored{out, view};
}

// A buffer of the value with its item axes in another order.
int Lowering::permuted(ValueId value, const std::vector<int>& order, const std::string& name) {
  const Shape item = at(value).item;
  Stored stored = stored_real(value);
  auto view = transposed(stored.view, item, order);
  if (!view) {
    materialize(stored, item, name);
    view = transposed(stored.view, item, order);
  }
  REPQUANT_CHECK(view.has_value());
  stored.view = *view;
  Shape shape;
  for (const int axis : order) shape.push_back(item[static_cast<size_t>(axis)]);
  return materialize(stored, shape, name);
}

// ---- integer inputs -----------------------------------------------------------------------------

bool Lowering::is_integer(ValueId value) {
  const auto known = values_.find(value);
  if (known == values_.end() || !known->second.real) return false;
  const DType dtype = builder_.buffer(known->second.real->buffer).dtype;
  return dtype == DType::kI64 || dtype == DType::kI32;
}

// Rows of a constant table by an integer input.
void Lowering::emit_lookup(const Node& node) {
  const Tensor& table = constant(node.inputs[0], node, "table");
  if (table.dtype() != DType::kF32 || table.rank() < 2 || node.attrs.integer("axis", 0) != 0)
    refuse(node, "expected rows of a table in F32");
  if (!is_integer(node.inputs.at(1)))
    refuse(node, "expected indices that are an input of the model");
  const Shape from = at(node.inputs[1]).item;
  const int64_t rows = table.shape()[0], width = table.size() / rows;
  Shape shape = from.empty() ? Shape{1} : from, item = from;
  shape.push_back(width);
  item.insert(item.end(), table.shape().begin() + 1, table.shape().end());
  const ValueId to = node.outputs[0];
  const int out = builder_.add_real(graph_.value(to).name, shape);
  Step& step = builder_.add_step("gather_rows", node.name, {at(node.inputs[1]).real->buffer}, out);
  Tensor copy = table;
  copy.reshape({rows, width});
  builder_.add_tensor(step, "table", std::move(copy));
  define(to, item).real = Stored{out, {}};
}

void Lowering::emit_cast(const Node& node) {
  const ValueId from = node.inputs[0], to = node.outputs[0];
  const DType target = graph_.value(to).dtype;
  const bool integer = target == DType::kI64 || target == DType::kI32;
  if (is_integer(from) ? integer : target == DType::kF32) return emit_alias(node);
  if (!is_integer(from) || target != DType::kF32)
    refuse(node, fmt::format("expected a cast to F32, got {}", name_of(target)));
  const Stored stored = *at(from).real;
  const int out =
      builder_.add_real(graph_.value(to).name, builder_.buffer(stored.buffer).item_shape);
  builder_.add_step("cast", node.name, {stored.buffer}, out);
  define(to, at(from).item).real = Stored{out, stored.view};
}

}  // namespace repquant::lowering
