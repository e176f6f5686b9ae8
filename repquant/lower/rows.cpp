// Layers that stay in f32: products, softmax, L2 norms; and repeated rows.
#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {

// The value's f32 buffer, in the value's order; its shape may be any with the same last axis.
int Lowering::real_rows(ValueId value) {
  Stored& stored = stored_real(value);
  const Shape &item = at(value).item, &shape = builder_.buffer(stored.buffer).item_shape;
  if (stored.view.identity() && !item.empty() && shape.back() == item.back()) return stored.buffer;
  return real(value);
}

int Lowering::code_rows(ValueId value, const CodeFormat& format) {
  Stored& stored = stored_codes(value, format);
  const Shape &item = at(value).item, &shape = builder_.buffer(stored.buffer).item_shape;
  if (stored.view.identity() && !item.empty() && shape.back() == item.back()) return stored.buffer;
  return codes(value, format);
}

bool Lowering::stays_float(NodeId id) const {
  return plan_.find({id, 0}) == nullptr && plan_.find({id, 1}) == nullptr;
}

// A linear layer without sites.
void Lowering::emit_float_linear(NodeId id) {
  const Node& node = graph_.node(id);
  const Tensor& weight = constant(node.inputs.at(1), node, "weight");
  const int in = real_rows(node.inputs[0]);
  Shape item = at(node.inputs[0]).item, shape = builder_.buffer(in).item_shape;
  if (weight.dtype() != DType::kF32 || weight.rank() != 2 || item.empty() ||
      weight.shape()[1] != item.back()) {
    refuse(node, fmt::format("weight {} does not fit items {}", to_string(weight.shape()),
                             to_string(item)));
  }
  const int64_t n = weight.shape()[0], k = weight.shape()[1];
  item.back() = shape.back() = n;
  Tensor turned(DType::kF32, {k, n});
  const auto from = weight.as<float>();
  for (int64_t i = 0; i < n * k; ++i)
    turned.as<float>()[static_cast<size_t>(i % k * n + i / k)] = from[static_cast<size_t>(i)];
  const ValueId to = node.outputs[0];
  const int out = builder_.add_real(graph_.value(to).name, shape);
  Step& step = builder_.add_step("matmul", node.name, {in}, out);
  builder_.add_tensor(step, "weight", std::move(turned));
  if (node.inputs.size() > 2 && node.inputs[2] != kNoValue) {
    const Tensor& bias = constant(node.inputs[2], node, "bias");
    if (bias.dtype() != DType::kF32 || bias.size() != n)
      refuse(node, "expected one bias in F32 an output");
    Tensor flat = bias;
    flat.reshape({n});
    builder_.add_tensor(step, "b", std::move(flat));
  }
  define(to, item).real = Stored{out, {}};
}

// Two activations that are not an attention's: no site has their ranges.
void Lowering::emit_matmul(const Node& node) {
  const ValueId a = node.inputs.at(0), b = node.inputs.at(1), to = node.outputs[0];
  if (graph_.is_constant(a) || graph_.is_constant(b))
    refuse(node, "expected two activations", "write products with constants as linear layers");
  const int left = real(a), right = real(b);
  const Shape &x = at(a).item, &y = at(b).item;
  const bool fits = x.size() >= 2 && y.size() == x.size() && y[y.size() - 2] == x.back() &&
                    std::equal(x.begin(), x.end() - 2, y.begin());
  if (!fits) {
    refuse(node, fmt::format("expected operands [.., M, K] and [.., K, N], got {} and {}",
                             to_string(x), to_string(y)));
  }
  Shape item = x;
  item.back() = y.back();
  const int out = builder_.add_real(graph_.value(to).name, item);
  builder_.add_step("matmul", node.name, {left, right}, out);
  define_real(to, out);
}

void Lowering::emit_softmax(const Node& node) {
  const ValueId from = node.inputs[0], to = node.outputs[0];
  resolve(from);
  const Shape item = at(from).item;
  const int64_t axis = node.attrs.integer("axis", -1);
  if (item.empty() || (axis != -1 && axis != static_cast<int64_t>(item.size())))
    refuse(node, "expected a softmax over the last axis");
  const int in = real_rows(from);
  const int out = builder_.add_real(graph_.value(to).name, builder_.buffer(in).item_shape);
  builder_.add_step("softmax", node.name, {in}, out);
  define(to, item).real = Stored{out, {}};
}

void Lowering::emit_l2_norm(const Node& node) {
  const ValueId from = node.inputs[0], to = node.outputs[0];
  const Stored stored = stored_real(from);
  const Shape item = at(from).item;
  const int64_t axis = node.attrs.integer("axis", -1);
  if (item.empty() || (axis != -1 && axis != static_cast<int64_t>(item.size())) ||
      node.attrs.integer("p", 2) != 2)
    refuse(node, "expected L2 norms over the last axis");
  const bool whole =
      stored.view.identity() && builder_.buffer(stored.buffer).item_shape.back() % item.back() == 0;
  const int in = whole ? stored.buffer : real(from);
  const int out = builder_.add_real(graph_.value(to).name, builder_.buffer(in).item_shape);
  Step& step = builder_.add_step("l2_norm", node.name, {in}, out);
  step.ints["width"] = item.back();
  // Without one, a row of zeros stays zero by any positive epsilon.
  const float epsilon = node.attrs.real("epsilon", 0.0f);
  builder_.add_vector(step, "eps", std::vector<float>{epsilon > 0.0f ? epsilon : 0x1p-126f});
  define(to, item).real = Stored{out, {}};
}

// ---- moves of whole rows, put off until somebody reads them -------------------------------------

// Whether every reader of the value is a concat, looking through moves: the pieces of a roll, or
// of neighbourhoods, that one copy brings together.
bool Lowering::is_gathered(ValueId value) const {
  const std::vector<NodeId> readers = graph_.consumers(value);
  if (readers.empty() || graph_.is_output(value)) return false;
  return std::all_of(readers.begin(), readers.end(), [&](NodeId id) {
    const Node& node = graph_.node(id);
    if (node.op == OpKind::kConcat || plan_.find({id, 0}) != nullptr)
      return node.op == OpKind::kConcat;
    return is_movement(node.op) && std::all_of(node.outputs.begin(), node.outputs.end(),
                                               [&](ValueId out) { return is_gathered(out); });
  });
}

// Applies `move` to the view of every form of `from`; false: some form is not made of rows.
bool Lowering::move_rows(ValueId from, ValueId to, const Shape& item,
                         const std::function<View(const View&, const Shape&)>& move) {
  resolve(from);
  const Lowered source = at(from);
  Lowered result;
  result.item = item;
  const auto moved = [&](const Stored& stored) -> std::optional<Stored> {
    const auto rows =
        as_rows(stored.view, source.item, element_count(builder_.buffer(stored.buffer).item_shape));
    if (!rows) return std::nullopt;
    return Stored{stored.buffer, move(*rows, source.item)};
  };
  if (source.real) {
    result.real = moved(*source.real);
    if (!result.real) return false;
  }
  for (const auto& [format, stored] : source.codes) {
    const auto codes = moved(stored);
    if (!codes) return false;
    result.codes.push_back({format, *codes});
  }
  if (!result.real && result.codes.empty()) return false;
  values_[to] = std::move(result);
  return true;
}

bool Lowering::take_rows(ValueId from, const Range& range, ValueId to, const Shape& item) {
  const bool last = range.axis + 1 == static_cast<int64_t>(at(from).item.size());
  if (last || at(from).constant || !is_gathered(to)) return false;
  return move_rows(from, to, item, [&](const View& view, const Shape& whole) {
    return sliced_rows(view, whole, range.axis, range.start, range.stop, range.step);
  });
}

// Pieces of one buffer joined along any axis but the last.
bool Lowering::join_rows(const Node& node) {
  for (const ValueId part : node.inputs) {
    if (graph_.is_constant(part) || at(part).constant || at(part).deferred || !at(part).real)
      return false;
  }
  const Shape first = at(node.inputs[0]).item;
  const int64_t rank = static_cast<int64_t>(first.size());
  int64_t axis = node.attrs.integer("axis", 1);
  axis = axis < 0 ? axis + rank : axis - 1;
  if (axis < 0 || axis + 1 >= rank) return false;
  std::vector<View> views;
  std::vector<Shape> items;
  const int buffer = at(node.inputs[0]).real->buffer;
  for (const ValueId part : node.inputs) {
    const Stored& stored = *at(part).real;
    if (stored.buffer != buffer) return false;
    items.push_back(at(part).item);
    const auto rows =
        as_rows(stored.view, items.back(), element_count(builder_.buffer(buffer).item_shape));
    if (!rows || (!views.empty() && rows->width != views[0].width)) return false;
    views.push_back(*rows);
  }
  Shape item = first;
  item[static_cast<size_t>(axis)] = 0;
  for (const Shape& part : items)
    item[static_cast<size_t>(axis)] += part[static_cast<size_t>(axis)];
  define(node.outputs[0], item).real = Stored{buffer, joined_rows(views, items, axis)};
  return true;
}

// Expand of an activation.
void Lowering::emit_repeat(const Node& node) {
  const ValueId from = node.inputs[0], to = node.outputs[0];
  resolve(from);
  const Shape item = item_shape(to), source = at(from).item;
  Shape aligned(item.size() - std::min(item.size(), source.size()), 1);
  aligned.insert(aligned.end(), source.begin(), source.end());
  bool fits = aligned.size() == item.size();
  for (size_t i = 0; fits && i < item.size(); ++i) fits = aligned[i] == item[i] || aligned[i] == 1;
  if (!fits || item.empty())
    refuse(node, fmt::format("items {} do not expand to {}", to_string(source), to_string(item)));
  const auto repeat = [&](const View& view, const Shape&) {
    return repeated_rows(view, aligned, item);
  };
  if (aligned.back() == item.back() && move_rows(from, to, item, repeat)) return;
  // The last axis itself is repeated, or its elements do not lie side by side.
  const int in = real(from);
  View rows;
  Shape elements = aligned, target = item;
  if (aligned.back() != item.back()) {
    elements.push_back(1);
    target.push_back(1);
  }
  rows = *as_rows({}, elements, element_count(elements));
  define(to, item).real = Stored{in, repeated_rows(rows, elements, target)};
}

}  // namespace repquant::lowering
