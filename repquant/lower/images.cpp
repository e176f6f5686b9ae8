// Images [C, H, W], kept as buffers [H, W, C]: pools, pixels from channels, nearest-pixel resizing.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {
namespace {

// Pads as given, or the most that ceil_mode adds behind.
Window pool_window(const Node& node, const Shape& item) {
  Window w;
  const auto kernel = node.attrs.integers("kernel_shape");
  const auto strides = node.attrs.integers("strides", {1, 1});
  const auto pads = node.attrs.integers("pads", {0, 0, 0, 0});
  if (kernel.size() != 2 || strides.size() != 2 || pads.size() != 4) return w;
  w.height = kernel[0], w.width = kernel[1];
  w.stride_y = strides[0], w.stride_x = strides[1];
  w.top = pads[0], w.left = pads[1], w.bottom = pads[2], w.right = pads[3];
  if (node.attrs.integer("ceil_mode", 0) == 0) return w;
  // One window more where it begins inside the image or its padding in front.
  const auto behind = [](int64_t size, int64_t before, int64_t after, int64_t k, int64_t stride) {
    const int64_t last = size + before + after - k, rest = last % stride;
    const int64_t next = last - rest + stride;
    return rest == 0 || next >= size + before ? after : after + stride - rest;
  };
  w.bottom = behind(item[1], w.top, w.bottom, w.height, w.stride_y);
  w.right = behind(item[2], w.left, w.right, w.width, w.stride_x);
  return w;
}

}  // namespace

void Lowering::emit_pool(NodeId id) {
  const Node& node = graph_.node(id);
  const ValueId from = node.inputs[0], to = node.outputs[0];
  resolve(from);
  const Shape item = at(from).item;
  const std::string automatic = node.attrs.text("auto_pad", "NOTSET");
  const auto dilations = node.attrs.integers("dilations", {1, 1});
  if (item.size() != 3 || (automatic != "NOTSET" && automatic != "VALID") ||
      dilations != std::vector<int64_t>{1, 1} || node.outputs.size() > 1)
    refuse(node, "expected a pool over images [batch, C, H, W] with explicit pads, one output");
  const Window window = pool_window(node, item);
  const bool average = node.op == OpKind::kAveragePool;
  const bool include = average && node.attrs.integer("count_include_pad", 0) != 0;
  if (include && node.attrs.integer("ceil_mode", 0) != 0)
    refuse(node, "expected ceil_mode 0 where pads are counted");
  const Shape out{item[0], window.rows(item[1]), window.columns(item[2])};
  if (out[1] < 1 || out[2] < 1) refuse(node, "expected windows within the image");
  const Demand wanted = demand(to);
  const CodeFormat* format = average ? nullptr : wanted.only_codes();
  if (format != nullptr && format->per_head()) format = nullptr;
  const Stored source = format != nullptr ? stored_codes(from, *format) : stored_real(from);
  const int in = channels_last(source, item, graph_.value(from).name + ".image");
  const Buffer buffer = builder_.buffer(in);
  const int result = builder_.add_buffer(graph_.value(to).name, buffer.dtype,
                                         {out[1], out[2], out[0]}, buffer.bits);
  Step& step = builder_.add_step(average ? "average_pool" : "max_pool", node.name, {in}, result);
  window.write(step);
  if (average) step.ints["include_pad"] = include ? 1 : 0;
  const Stored stored{result, channels_first_view(out)};
  if (format != nullptr) define(to, out).codes.push_back({*format, stored});
  else define(to, out).real = stored;
}

// The value read as `factors`, those permuted, the result read as `item`: no step where the view
// allows it.
void Lowering::emit_rearranged(const Node& node, const Shape& factors, const std::vector<int>& perm,
                               const Shape& item) {
  const ValueId from = node.inputs[0];
  resolve(from);
  const auto turned = [&](Stored& stored) {
    auto view = transposed(stored.view, factors, perm);
    if (!view) {
      materialize(stored, at(from).item, graph_.value(from).name + ".moved");
      view = transposed(stored.view, factors, perm);
    }
    REPQUANT_CHECK(view.has_value());
    return Stored{stored.buffer, *view};
  };
  Lowered result;
  result.item = item;
  Lowered& source = at(from);
  if (source.real) result.real = turned(*source.real);
  for (auto& [format, stored] : source.codes) result.codes.push_back({format, turned(stored)});
  values_[node.outputs[0]] = std::move(result);
}

void Lowering::emit_depth_to_space(const Node& node) {
  const Shape item = at(node.inputs[0]).item;
  const int64_t b = node.attrs.integer("blocksize", 0);
  if (item.size() != 3 || b < 1) refuse(node, "expected images [batch, C, H, W] and a block size");
  if (node.op == OpKind::kSpaceToDepth) {
    if (item[1] % b != 0 || item[2] % b != 0) refuse(node, "expected whole blocks");
    return emit_rearranged(node, {item[0], item[1] / b, b, item[2] / b, b}, {2, 4, 0, 1, 3},
                           {item[0] * b * b, item[1] / b, item[2] / b});
  }
  if (item[0] % (b * b) != 0) refuse(node, "expected channels for whole blocks");
  const int64_t channels = item[0] / (b * b);
  const Shape out{channels, item[1] * b, item[2] * b};
  if (node.attrs.text("mode", "DCR") == "CRD")
    return emit_rearranged(node, {channels, b, b, item[1], item[2]}, {0, 3, 1, 4, 2}, out);
  emit_rearranged(node, {b, b, channels, item[1], item[2]}, {2, 3, 0, 4, 1}, out);
}

// Pixels copied from the places that the node's rule names, found once.
void Lowering::emit_resize(const Node& node) {
  const ValueId from = node.inputs[0], to = node.outputs[0];
  resolve(from);
  const Shape item = at(from).item, out = item_shape(to);
  const std::string place = node.attrs.text("coordinate_transformation_mode", "half_pixel"),
                    rounding = node.attrs.text("nearest_mode", "round_prefer_floor");
  if (item.size() != 3 || out.size() != 3 || item[0] != out[0] ||
      node.attrs.text("mode", "nearest") != "nearest")
    refuse(node, "expected images [batch, C, H, W] resized to the nearest pixel");
  const bool plain = place == "asymmetric", half = place == "half_pixel";
  const std::vector<std::string> modes = {"floor", "ceil", "round_prefer_floor",
                                          "round_prefer_ceil"};
  if ((!plain && !half) || std::find(modes.begin(), modes.end(), rounding) == modes.end())
    refuse(node,
           fmt::format("expected places half_pixel or asymmetric, got {}, {}", place, rounding));
  const auto source_of = [&](int64_t i, int64_t size, int64_t scaled) {
    const double scale = static_cast<double>(size) / static_cast<double>(scaled);
    const double x =
        half ? (static_cast<double>(i) + 0.5) * scale - 0.5 : static_cast<double>(i) * scale;
    const double rounded = rounding == "floor"                ? std::floor(x)
                           : rounding == "ceil"               ? std::ceil(x)
                           : rounding == "round_prefer_floor" ? std::ceil(x - 0.5)
                                                              : std::floor(x + 0.5);
    return std::clamp<int64_t>(static_cast<int64_t>(rounded), 0, size - 1);
  };
  std::vector<int32_t> index;
  for (int64_t y = 0; y < out[1]; ++y) {
    for (int64_t x = 0; x < out[2]; ++x) {
      index.push_back(static_cast<int32_t>(source_of(y, item[1], out[1]) * item[2] +
                                           source_of(x, item[2], out[2])));
    }
  }
  const Demand wanted = demand(to);
  const CodeFormat* format = wanted.only_codes();
  if (format != nullptr && format->per_head()) format = nullptr;
  const Stored source = format != nullptr ? stored_codes(from, *format) : stored_real(from);
  const int in = channels_last(source, item, graph_.value(from).name + ".image");
  const Buffer buffer = builder_.buffer(in);
  const int result = builder_.add_buffer(graph_.value(to).name, buffer.dtype,
                                         {out[1], out[2], out[0]}, buffer.bits);
  Step& step = builder_.add_step("copy_rows", node.name, {in}, result);
  step.ints["width"] = out[0];
  builder_.add_vector(step, "index", index);
  const Stored stored{result, channels_first_view(out)};
  if (format != nullptr) define(to, out).codes.push_back({*format, stored});
  else define(to, out).real = stored;
}

}  // namespace repquant::lowering
