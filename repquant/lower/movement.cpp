// Ops that only move data: reshape and transpose change the reading of a buffer, slices become
// steps.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {
namespace {

int64_t normalized_axis(int64_t axis, size_t item_rank) {
  return axis < 0 ? axis + static_cast<int64_t>(item_rank) + 1 : axis;  // counts the batch
}

// Start or stop of a slice as ONNX clamps it.
int64_t clamped(int64_t position, int64_t size) {
  return std::clamp<int64_t>(position < 0 ? position + size : position, 0, size);
}

}  // namespace

void Lowering::emit_alias(const Node& node) {
  if (at(node.inputs[0]).function) resolve(node.inputs[0]);
  const Lowered source = at(node.inputs[0]);
  values_[node.outputs[0]] = source;
}

void Lowering::emit_reshape(const Node& node) {
  const Shape item = item_shape(node.outputs[0]);
  const bool keeps_rows = !item.empty() && !at(node.inputs[0]).item.empty() &&
                          item.back() == at(node.inputs[0]).item.back();
  if (!keeps_rows || at(node.inputs[0]).function) resolve(node.inputs[0]);
  Lowered source = at(node.inputs[0]);
  if (element_count(item) != element_count(source.item)) {
    refuse(node, fmt::format("mixes the batch with other axes: items {} become {}",
                             to_string(source.item), to_string(item)));
  }
  source.item = item;
  if (source.constant) source.constant->reshape(item);
  values_[node.outputs[0]] = std::move(source);
}

void Lowering::emit_transpose(const Node& node) {
  resolve(node.inputs[0]);
  Lowered& source = at(node.inputs[0]);
  const size_t rank = source.item.size();
  std::vector<int64_t> perm = node.attrs.integers("perm");
  if (perm.empty()) refuse(node, "moves the batch axis");
  if (perm.size() != rank + 1 || perm[0] != 0) refuse(node, "moves the batch axis");
  std::vector<int> axes;
  Shape item;
  for (size_t i = 1; i < perm.size(); ++i) {
    axes.push_back(static_cast<int>(perm[i]) - 1);
    item.push_back(source.item[static_cast<size_t>(axes.back())]);
  }
  if (source.constant) refuse(node, "expected constants to be transposed beforehand");
  const std::string name = graph_.value(node.inputs[0]).name + ".moved";
  const bool rows_stay = !axes.empty() && axes.back() + 1 == static_cast<int>(rank);
  const auto turned = [&](Stored& stored) {
    if (stored.view.rows != nullptr && rows_stay) {
      const auto rows = as_rows(stored.view, source.item, 0);
      return Stored{stored.buffer, transposed_rows(*rows, source.item, axes)};
    }
    auto view = transposed(stored.view, source.item, axes);
    if (!view) {
      materialize(stored, source.item, name);
      view = transposed(stored.view, source.item, axes);
    }
    REPQUANT_CHECK(view.has_value());
    return Stored{stored.buffer, *view};
  };
  Lowered result;
  result.item = item;
  if (source.real) result.real = turned(*source.real);
  for (auto& [format, stored] : source.codes) result.codes.push_back({format, turned(stored)});
  values_[node.outputs[0]] = std::move(result);
}

void Lowering::take(ValueId from, const Range& range, ValueId to, const Shape& item,
                    const std::string& name) {
  const Lowered source = at(from);
  const bool last = range.axis + 1 == static_cast<int64_t>(source.item.size());
  if (source.deferred && last && range.step == 1) {
    Lowered& result = define(to, item);
    result.deferred = DeferredLinear{source.deferred->node, source.deferred->begin + range.start,
                                     source.deferred->begin + range.stop};
    return;
  }
  if (source.constant) {
    throw Error(ErrorCode::kUnsupported,
                "lower: \"" + name + "\": expected constants to be sliced beforehand");
  }
  if (!source.function) {
    if (take_rows(from, range, to, item)) return;
    resolve(from);
  }
  Shape kept = source.item;  // a slice keeps the rank; `item` may lack the axis
  int64_t& size = kept[static_cast<size_t>(range.axis)];
  const int64_t whole = size;
  size = (range.stop - range.start + range.step - 1) / range.step;
  const auto emit = [&](Stored& stored, const std::string& step_name) {
    const bool image = channels_first(stored, source.item) && item.size() == 3;
    const int in = image ? stored.buffer : materialize(stored, source.item, step_name + ".moved");
    const Buffer buffer = builder_.buffer(in);
    const Shape shape = image ? Shape{kept[1], kept[2], kept[0]} : kept;
    const int out = builder_.add_buffer(step_name, buffer.dtype, shape, buffer.bits);
    Step& step = builder_.add_step("slice", step_name, {in}, out);
    const int64_t axis = !image ? range.axis : range.axis == 0 ? 2 : range.axis - 1;
    step.lists["range"] = {axis, range.start, range.stop, range.step};
    return Stored{out, image ? channels_first_view(kept) : View{}};
  };
  const Demand wanted = demand(to);
  Lowered result;
  result.item = item;
  for (const CodeFormat& format : wanted.codes) {
    // The most of an image: quantized as a whole, the slice then moves bytes.
    const bool quantizable = format.kind == CodeFormat::Kind::kUniform && !format.per_head();
    const bool image = source.item.size() == 3 && 2 * size >= whole && quantizable;
    const bool exists = std::any_of(at(from).codes.begin(), at(from).codes.end(),
                                    [&](const auto& entry) { return entry.first == format; });
    if (image && source.function && !at(from).real)
      result.codes.push_back({format, emit(function_codes(from, format), name + ".codes")});
    else if (exists || (image && channels_first(stored_real(from), source.item)))
      result.codes.push_back({format, emit(stored_codes(from, format), name + ".codes")});
  }
  if (wanted.real || result.codes.size() < wanted.codes.size()) {
    if (source.function && !at(from).real) {
      Stored stored = source.function->source;
      result.function =
          DeferredFunction{name + ".function", emit(stored, name), source.function->function};
    } else {
      result.real = emit(stored_real(from), name);
    }
  }
  values_[to] = std::move(result);
}

void Lowering::emit_slice(const Node& node) {
  const size_t rank = at(node.inputs[0]).item.size();
  const auto starts = constant_integers(node.inputs.at(1), node, "start");
  const auto stops = constant_integers(node.inputs.at(2), node, "end");
  std::vector<int64_t> axes, steps(starts.size(), 1);
  const auto given = [&](size_t i) { return node.inputs.size() > i && node.inputs[i] != kNoValue; };
  if (given(3)) axes = constant_integers(node.inputs[3], node, "axes");
  for (size_t i = 0; !given(3) && i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  if (given(4)) steps = constant_integers(node.inputs[4], node, "steps");
  if (starts.size() != 1 || stops.size() != 1 || axes.size() != 1 || steps.size() != 1) {
    refuse(node, "expected a slice along one axis");
  }
  const int64_t axis = normalized_axis(axes[0], rank);
  if (axis == 0 && starts[0] == 0 && steps[0] == 1 &&
      stops[0] == std::numeric_limits<int64_t>::max())
    return emit_alias(node);
  if (axis < 1 || axis > static_cast<int64_t>(rank)) refuse(node, "slices the batch");
  if (steps[0] < 1) refuse(node, "expected a positive step");
  Shape item = at(node.inputs[0]).item;
  int64_t& size = item[static_cast<size_t>(axis) - 1];
  const int64_t start = clamped(starts[0], size), stop = clamped(stops[0], size);
  if (stop <= start) refuse(node, "the slice is empty");
  size = (stop - start + steps[0] - 1) / steps[0];
  take(node.inputs[0], {axis - 1, start, stop, steps[0]}, node.outputs[0], item, node.name);
}

void Lowering::emit_gather(const Node& node) {
  Shape item = at(node.inputs[0]).item;
  const int64_t axis = normalized_axis(node.attrs.integer("axis", 0), item.size());
  const auto indices = constant_integers(node.inputs.at(1), node, "indices");
  if (axis < 1 || axis > static_cast<int64_t>(item.size())) refuse(node, "gathers from the batch");
  for (size_t i = 1; i < indices.size(); ++i) {
    if (indices[i] != indices[0] + static_cast<int64_t>(i))
      refuse(node, "expected consecutive indices");
  }
  if (indices.empty()) refuse(node, "expected an index");
  const size_t at_axis = static_cast<size_t>(axis) - 1;
  const int64_t size = item[at_axis];
  const int64_t start = indices[0] < 0 ? indices[0] + size : indices[0];
  const int64_t count = static_cast<int64_t>(indices.size());
  if (start < 0 || start + count > size) refuse(node, "index out of range");
  const int64_t rank = graph_.value(node.inputs[1]).constant->rank();
  if (rank > 1) refuse(node, "expected indices of rank 0 or 1");
  item[at_axis] = count;
  if (rank == 0) item.erase(item.begin() + static_cast<std::ptrdiff_t>(at_axis));
  take(node.inputs[0], {axis - 1, start, start + count, 1}, node.outputs[0], item, node.name);
}

void Lowering::emit_split(const Node& node) {
  const Shape whole = at(node.inputs[0]).item;
  const int64_t axis = normalized_axis(node.attrs.integer("axis", 0), whole.size());
  if (axis < 1 || axis > static_cast<int64_t>(whole.size())) refuse(node, "splits the batch");
  const size_t at_axis = static_cast<size_t>(axis) - 1;
  const int64_t parts = static_cast<int64_t>(node.outputs.size());
  std::vector<int64_t> sizes = node.attrs.integers("split");
  if (node.inputs.size() > 1 && node.inputs[1] != kNoValue) {
    sizes = constant_integers(node.inputs[1], node, "sizes");
  }
  if (sizes.empty()) {
    const int64_t each = (whole[at_axis] + parts - 1) / parts;
    for (int64_t i = 0; i < parts; ++i) sizes.push_back(std::min(each, whole[at_axis] - i * each));
  }
  int64_t start = 0;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    Shape item = whole;
    item[at_axis] = sizes.at(i);
    if (sizes[i] < 1 || start + sizes[i] > whole[at_axis]) refuse(node, "sizes do not add up");
    take(node.inputs[0], {axis - 1, start, start + sizes[i], 1}, node.outputs[i], item,
         fmt::format("{}.{}", node.name, i));
    start += sizes[i];
  }
}

// Constants are expanded here (class tokens): every image gets the same.
void Lowering::emit_expand(const Node& node) {
  if (!graph_.is_constant(node.inputs[0])) return emit_repeat(node);
  const Shape item = item_shape(node.outputs[0]);
  const Tensor row = item_constant(node.inputs[0], item, node);
  Tensor whole(DType::kF32, item);
  const auto in = row.as<float>();
  auto out = whole.as<float>();
  for (size_t i = 0; i < out.size(); ++i) out[i] = in[i % in.size()];
  define(node.outputs[0], item).constant = std::move(whole);
}

// Constants in front of one variable are class tokens; else the parts are joined: as codes where
// every reader wants the same ones, images in the order of their buffers.
void Lowering::emit_concat(const Node& node) {
  if (!joins(node)) return emit_prepend(node);
  if (join_rows(node)) return;
  const ValueId to = node.outputs[0];
  if (node.inputs.size() == 1) return emit_alias(node);
  for (const ValueId part : node.inputs) resolve(part);
  const Shape first = at(node.inputs[0]).item;
  int64_t axis = normalized_axis(node.attrs.integer("axis", 0), first.size()) - 1;
  if (axis < 0 || axis >= static_cast<int64_t>(first.size())) refuse(node, "joins batches");
  Shape item = first;
  item[static_cast<size_t>(axis)] = 0;
  for (const ValueId part : node.inputs)
    item[static_cast<size_t>(axis)] += at(part).item.at(static_cast<size_t>(axis));
  const Demand wanted = demand(to);
  const CodeFormat* format = wanted.only_codes();
  if (format != nullptr && format->per_head()) format = nullptr;
  const auto stored = [&](ValueId part) {
    return format != nullptr ? stored_codes(part, *format) : stored_real(part);
  };
  const bool image = std::any_of(node.inputs.begin(), node.inputs.end(), [&](ValueId part) {
    return channels_first(stored(part), at(part).item);
  });
  std::vector<int> parts;
  for (const ValueId part : node.inputs) {
    if (image)
      parts.push_back(
          channels_last(stored(part), at(part).item, graph_.value(part).name + ".moved"));
    else parts.push_back(format != nullptr ? codes(part, *format) : real(part));
  }
  if (image) axis = axis == 0 ? 2 : axis - 1;
  const int out = join(parts, axis, node.name, graph_.value(to).name);
  const Stored result{out, image ? channels_first_view(item) : View{}};
  if (format != nullptr) define(to, item).codes.push_back({*format, result});
  else define(to, item).real = result;
}

// Sixteen at a time.
int Lowering::join(std::vector<int> parts, int64_t axis, const std::string& name,
                   const std::string& buffer) {
  constexpr size_t most = 16;
  while (parts.size() > 1) {
    const auto end = parts.begin() + static_cast<ptrdiff_t>(std::min(parts.size(), most));
    const std::vector<int> group(parts.begin(), end);
    const Buffer like = builder_.buffer(group[0]);
    Shape shape = like.item_shape;
    int64_t& size = shape[static_cast<size_t>(axis)];
    size = 0;
    int bits = 0;
    for (const int part : group) {
      size += builder_.buffer(part).item_shape[static_cast<size_t>(axis)];
      bits = std::max(bits, builder_.buffer(part).bits);
    }
    const int out = builder_.add_buffer(buffer, like.dtype, shape, bits);
    builder_.add_step("concat", name, group, out).ints["axis"] = axis;
    parts.erase(parts.begin(), end);
    parts.insert(parts.begin(), out);
  }
  return parts[0];
}

// Constants in front of one variable, along the rows: class and distillation tokens.
void Lowering::emit_prepend(const Node& node) {
  const ValueId variable = node.inputs.back();
  if (graph_.is_constant(variable) || at(variable).constant)
    refuse(node, "expected tokens after constants");
  const Shape item = at(variable).item;
  const int64_t axis = normalized_axis(node.attrs.integer("axis", 1), item.size());
  if (item.size() != 2 || axis != 1)
    refuse(node, "expected [batch, tokens, channels] joined along tokens");
  std::vector<float> front;
  for (size_t i = 0; i + 1 < node.inputs.size(); ++i) {
    const ValueId input = node.inputs[i];
    Tensor tensor;
    if (graph_.is_constant(input)) {
      tensor = *graph_.value(input).constant;
    } else if (at(input).constant) {
      tensor = *at(input).constant;
    } else {
      refuse(node, "expected constants in front of one variable (class tokens)");
    }
    if (tensor.dtype() != DType::kF32 || tensor.rank() < 1 || tensor.shape().back() != item[1]) {
      refuse(node, fmt::format("constant {} does not fit items {}", to_string(tensor.shape()),
                               to_string(item)));
    }
    const auto values = tensor.as<float>();
    front.insert(front.end(), values.begin(), values.end());
  }
  const int64_t rows = static_cast<int64_t>(front.size()) / item[1];
  const int in = real(variable);
  const int out = builder_.add_real(graph_.value(node.outputs[0]).name, {rows + item[0], item[1]});
  Step& step = builder_.add_step("prepend", node.name, {in}, out);
  builder_.add_tensor(step, "const", Tensor::of<float>({rows, item[1]}, front));
  define_real(node.outputs[0], out);
}

}  // namespace repquant::lowering
