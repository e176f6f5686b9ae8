// Convolutions: images are kept as codes [H, W, C]; a 1 x 1 reads them as rows of a product.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {
namespace {

// Weights [N][C, kh, kw] in the order of windows, [N][kh, kw, C].
void channels_last(LinearWeights& weights, int64_t channels) {
  const int64_t taps = weights.k / channels;
  std::vector<int8_t> moved(weights.w.size());
  for (int64_t n = 0; n < weights.n; ++n) {
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t k = 0; k < taps; ++k) {
        moved[static_cast<size_t>(n * weights.k + k * channels + c)] =
            weights.w[static_cast<size_t>(n * weights.k + c * taps + k)];
      }
    }
  }
  weights.w = std::move(moved);
}

// Rows of one group's channels as rows of all channels: outside the group the weights are zero, the
// code zw. The products grow by the number of groups, which small convolutions can bear.
void fill_groups(LinearWeights& weights, int64_t groups) {
  const int64_t own = weights.k, whole = own * groups, each = weights.n / groups;
  std::vector<int8_t> w(static_cast<size_t>(weights.n * whole));
  for (int64_t n = 0; n < weights.n; ++n) {
    const auto row = w.begin() + n * whole;
    std::fill(row, row + whole, static_cast<int8_t>(weights.zw[static_cast<size_t>(n)]));
    std::copy_n(weights.w.begin() + n * own, own, row + n / each * own);
  }
  weights.w = std::move(w);
  weights.k = whole;
}

// Kernel equal to stride, no padding, one group: patches that do not overlap.
bool is_patch_embedding(const Node& node, const Shape& weight) {
  const auto all = [](const std::vector<int64_t>& list, int64_t v) {
    return std::all_of(list.begin(), list.end(), [v](int64_t x) { return x == v; });
  };
  return weight.size() == 4 && weight[2] * weight[3] > 1 && node.attrs.integer("group", 1) == 1 &&
         all(node.attrs.integers("pads"), 0) && all(node.attrs.integers("dilations"), 1) &&
         node.attrs.integers("strides", {1, 1}) ==
             std::vector<int64_t>(weight.begin() + 2, weight.end());
}

}  // namespace

std::optional<Lowering::Pads> Lowering::folded_pad(const Node& node) const {
  if (node.op != OpKind::kPad || node.attrs.text("mode", "constant") != "constant")
    return std::nullopt;
  const auto given = [&](size_t i) { return node.inputs.size() > i && node.inputs[i] != kNoValue; };
  if (!given(1) || !graph_.is_constant(node.inputs[1]) || given(3)) return std::nullopt;
  if (given(2)) {
    if (!graph_.is_constant(node.inputs[2])) return std::nullopt;
    const Tensor& value = *graph_.value(node.inputs[2]).constant;
    if (value.dtype() != DType::kF32 || value.size() != 1 || value.as<float>()[0] != 0.0f)
      return std::nullopt;
  }
  const Tensor& pads = *graph_.value(node.inputs[1]).constant;
  if (pads.dtype() != DType::kI64 || pads.size() != 8) return std::nullopt;
  const auto p = pads.as<int64_t>();
  if (p[0] != 0 || p[1] != 0 || p[4] != 0 || p[5] != 0) return std::nullopt;
  if (std::any_of(p.begin(), p.end(), [](int64_t v) { return v < 0; })) return std::nullopt;
  for (const NodeId reader : graph_.consumers(node.outputs[0])) {
    if (graph_.node(reader).op != OpKind::kConv) return std::nullopt;
  }
  if (graph_.is_output(node.outputs[0])) return std::nullopt;
  return Pads{node.inputs[0], p[2], p[3], p[6], p[7]};
}

Lowering::Clamped Lowering::clamped_output(NodeId id) const {
  const ValueId own = graph_.node(id).outputs[0];
  const std::vector<NodeId> readers = graph_.consumers(own);
  if (readers.size() != 1 || graph_.is_output(own) || plan_.find({readers[0], 0}) != nullptr)
    return {own, {}};
  const Node& reader = graph_.node(readers[0]);
  ProductForm form;
  if (reader.op == OpKind::kRelu) {
    form.lowest = 0.0f;
  } else if (reader.op == OpKind::kClip) {
    const Demand wanted = demand(reader.outputs[0]);
    const CodeFormat* format = wanted.only_codes();
    if (format == nullptr) return {own, {}};
    // Bounds a channel are one where they end at the same code.
    const auto bound = [&](size_t i) -> std::optional<float> {
      if (reader.inputs.size() <= i || !graph_.is_constant(reader.inputs[i])) return std::nullopt;
      const Tensor& tensor = *graph_.value(reader.inputs[i]).constant;
      if (tensor.dtype() != DType::kF32 || tensor.size() < 1) return std::nullopt;
      const auto values = tensor.as<float>();
      const int32_t code = encode(*format, values[0]);
      const bool same = std::all_of(values.begin(), values.end(),
                                    [&](float x) { return encode(*format, x) == code; });
      return same ? std::optional<float>(values[0]) : std::nullopt;
    };
    form.lowest = bound(1);
    form.highest = bound(2);
    const bool known = form.lowest && form.highest && *form.lowest <= *form.highest;
    if (!known) return {own, {}};
  } else {
    return {own, {}};
  }
  const ValueId to = reader.outputs[0];
  if (demand(to).only_codes() == nullptr) return {own, {}};
  return {to, form};
}

bool Lowering::takes_residual(NodeId id) const {
  const Node& node = graph_.node(id);
  if (node.op == OpKind::kLinear) return true;
  if (node.op != OpKind::kConv || !graph_.is_constant(node.inputs.at(1))) return false;
  const Shape& weight = graph_.value(node.inputs[1]).constant->shape();
  return node.attrs.integer("group", 1) == 1 && weight.size() == 4 &&
         !is_patch_embedding(node, weight);
}

// Whether some form of the value is a buffer [H, W, C].
bool Lowering::is_image(ValueId value) {
  const Lowered& known = at(value);
  const auto fits = [&](const Stored& stored) { return channels_first(stored, known.item); };
  return (known.real && fits(*known.real)) || (known.function && fits(known.function->source)) ||
         std::any_of(known.codes.begin(), known.codes.end(),
                     [&](const auto& entry) { return fits(entry.second); });
}

void Lowering::emit_conv(NodeId id) {
  const ValueId out = graph_.node(id).outputs[0];
  if (!fused_add_.contains(id)) return emit_convolution(id, clamped_output(id), kNoValue);
  const Shape item = item_shape(out);  // emitted at the add, where the other operand exists
  define(out, item).deferred = DeferredLinear{id, 0, item.empty() ? 1 : item[0]};
}

void Lowering::emit_convolution(NodeId id, Clamped output, ValueId residual) {
  const Node& node = graph_.node(id);
  const Tensor& weight = constant(node.inputs.at(1), node, "weight");
  ValueId source = node.inputs[0];
  Window window;
  const NodeId before = graph_.value(source).producer;
  if (before >= 0) {
    if (const auto pads = folded_pad(graph_.node(before))) {
      source = pads->source;
      window.top = pads->top, window.left = pads->left;
      window.bottom = pads->bottom, window.right = pads->right;
    }
  }
  const Shape item = at(source).item;
  if (weight.rank() != 4 || item.size() != 3)
    refuse(node, "expected images [batch, C, H, W]", "other convolutions: evaluate by simulation");
  if (!window.pads() && is_patch_embedding(node, weight.shape()) && !is_image(source) &&
      item[0] == weight.shape()[1] && item[1] % weight.shape()[2] == 0 &&
      item[2] % weight.shape()[3] == 0)
    return emit_patch_embedding(id);
  const std::string automatic = node.attrs.text("auto_pad", "NOTSET");
  if (automatic != "NOTSET" && automatic != "VALID")
    refuse(node, "expected explicit pads, got " + automatic);
  const auto strides = node.attrs.integers("strides", {1, 1}),
             dilations = node.attrs.integers("dilations", {1, 1}),
             pads = node.attrs.integers("pads", {0, 0, 0, 0});
  window.height = weight.shape()[2], window.width = weight.shape()[3];
  window.stride_y = strides.at(0), window.stride_x = strides.at(1);
  window.dilation_y = dilations.at(0), window.dilation_x = dilations.at(1);
  window.top += pads.at(0), window.left += pads.at(1);
  window.bottom += pads.at(2), window.right += pads.at(3);
  const int64_t channels = item[0], groups = node.attrs.integer("group", 1);
  LinearWeights weights = layer_weights(id);
  const bool depthwise = groups == channels && weights.n == channels && channels > 1;
  if (groups < 1 || weight.shape()[1] * groups != channels || weights.n % groups != 0) {
    refuse(node, fmt::format("weight {} does not fit {} channels in {} groups",
                             to_string(weight.shape()), channels, groups));
  }
  if (!depthwise && groups > 1) fill_groups(weights, groups);
  const CodeFormat format = site_format(id, 0);
  if (window.pads() && (format.kind != CodeFormat::Kind::kUniform || format.zero < format.lo ||
                        format.zero > format.hi)) {
    refuse(node, "expected uniform codes with a code for 0 in front of padding");
  }
  const int image =
      channels_last(stored_codes(source, format), item, graph_.value(source).name + ".image");
  auto& [to, form] = output;
  const Shape out{weights.n, window.rows(item[1]), window.columns(item[2])};
  form.depthwise = depthwise;
  if (depthwise || window.height * window.width > 1 || window.stride_y > 1 || window.stride_x > 1 ||
      window.pads()) {
    form.window = window;
    if (!depthwise) lowering::channels_last(weights, channels);
  }
  const int added = residual == kNoValue ? -1
                                         : channels_last(stored_real(residual), out,
                                                         graph_.value(residual).name + ".moved");
  define(to, out);
  emit_product(weights, image, format, to, out, added, node.name, form);
  if (at(to).real) at(to).real->view = channels_first_view(out);
  for (auto& entry : at(to).codes) entry.second.view = channels_first_view(out);
}

// Codes of the image, moved to [patches, C*kh*kw], times the weight.
void Lowering::emit_patch_embedding(NodeId id) {
  const Node& node = graph_.node(id);
  const Tensor& weight = constant(node.inputs.at(1), node, "weight");
  const Shape item = at(node.inputs[0]).item;
  const int64_t kh = weight.shape()[2], kw = weight.shape()[3];
  const int64_t h = item[1] / kh, w = item[2] / kw;
  if (h * kh != item[1] || w * kw != item[2]) {
    refuse(node, fmt::format("expected images that are whole patches, got {}", to_string(item)));
  }
  const LinearWeights weights = layer_weights(id);
  const CodeFormat format = site_format(id, 0);
  const int image = codes(node.inputs[0], format);
  // Tokens are read as rows, images by their rows and columns.
  const std::vector<NodeId> readers = graph_.consumers(node.outputs[0]);
  const bool image_follows = std::none_of(readers.begin(), readers.end(), [&](NodeId reader) {
    return is_movement(graph_.node(reader).op);
  });
  const int patches = builder_.add_buffer(
      node.name + ".patches", DType::kU8,
      image_follows ? Shape{h, w, weights.k} : Shape{h * w, weights.k}, format.bits);
  Step& move = builder_.add_step("transpose", node.name + ".patches", {image}, patches);
  move.lists["dims"] = {item[0], h, kh, w, kw};
  move.lists["perm"] = {1, 3, 0, 2, 4};
  const ValueId out = node.outputs[0];
  define(out, {weights.n, h, w});
  emit_product(weights, patches, format, out, {weights.n, h, w}, -1, node.name);
  const View channels_first{{h * w, weights.n}, {1, 0}};
  if (at(out).real) at(out).real->view = channels_first;
  for (auto& entry : at(out).codes) entry.second.view = channels_first;
}

// ---- what stands around convolutions ------------------------------------------------------------

void Lowering::emit_clip(NodeId id) {
  const Node& node = graph_.node(id);
  const ValueId from = node.inputs[0], to = node.outputs[0];
  if (values_.contains(to)) return;  // the layer before clamps its codes
  const auto bound = [&](size_t i, float missing) {
    if (node.inputs.size() <= i || node.inputs[i] == kNoValue) return missing;
    const Tensor& tensor = constant(node.inputs[i], node, "bound");
    if (tensor.dtype() != DType::kF32 || tensor.size() != 1) refuse(node, "expected F32 bounds");
    return tensor.as<float>()[0];
  };
  constexpr float largest = std::numeric_limits<float>::max();
  const float low = std::max(bound(1, -largest), -largest);
  const float high = std::min(bound(2, largest), largest);
  if (!(low <= high)) refuse(node, fmt::format("expected bounds in order, got {}, {}", low, high));
  const Stored stored = stored_real(from);
  const Shape item = at(from).item;
  const bool six = low == 0.0f && high == 6.0f;
  Activation clamp{six ? "relu6" : "clip", {}, {}};
  if (!six) clamp.parameters = {low, high};
  define(to, item).function = DeferredFunction{node.name, stored, clamp};
}

// Zeros around an item, in f32.
void Lowering::emit_pad(const Node& node) {
  if (folded_pad(node)) return;
  const auto given = [&](size_t i) { return node.inputs.size() > i && node.inputs[i] != kNoValue; };
  if (node.attrs.text("mode", "constant") != "constant" || given(3))
    refuse(node, "expected constant padding of all axes");
  if (given(2)) {
    const Tensor& value = constant(node.inputs[2], node, "value");
    if (value.dtype() != DType::kF32 || value.size() != 1 || value.as<float>()[0] != 0.0f)
      refuse(node, "expected zeros");
  }
  const Shape item = at(node.inputs[0]).item;
  const std::vector<int64_t> pads = constant_integers(node.inputs.at(1), node, "pads");
  const size_t rank = item.size() + 1;
  if (pads.size() != 2 * rank || pads[0] != 0 || pads[rank] != 0)
    refuse(node, "expected pads of every axis, none of the batch");
  if (std::any_of(pads.begin(), pads.end(), [](int64_t v) { return v < 0; }))
    refuse(node, "expected pads of 0 or more");
  std::vector<int64_t> before(pads.begin() + 1, pads.begin() + static_cast<ptrdiff_t>(rank)),
      after(pads.begin() + static_cast<ptrdiff_t>(rank) + 1, pads.end());
  Shape padded = item;
  for (size_t i = 0; i < item.size(); ++i) padded[i] += before[i] + after[i];
  const Stored stored = stored_real(node.inputs[0]);
  const bool image = channels_first(stored, item);
  const int in = image ? stored.buffer : real(node.inputs[0]);
  Shape shape = padded;
  if (image) {
    for (auto* list : {&before, &after, &shape}) *list = {(*list)[1], (*list)[2], (*list)[0]};
  }
  const ValueId to = node.outputs[0];
  const int out = builder_.add_real(graph_.value(to).name, shape);
  Step& step = builder_.add_step("pad", node.name, {in}, out);
  step.lists["before"] = before;
  step.lists["after"] = after;
  define(to, padded).real = Stored{out, image ? channels_first_view(padded) : View{}};
}

}  // namespace repquant::lowering
