#include "repquant/graph/conv_transpose.h"

#include <algorithm>

#include "repquant/core/error.h"

namespace repquant {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b > 0 ? 1 : 0); }

// One axis. Output o = stride q + r reads input q + (r + begin - dilation t) / stride for the taps
// t where that is whole.
struct Axis {
  int64_t taps, stride, dilation, begin, end, extra;

  bool reads(int64_t place, int64_t tap) const {
    return (place + begin - dilation * tap) % stride == 0;
  }
  int64_t offset(int64_t place, int64_t tap) const {
    return (place + begin - dilation * tap) / stride;
  }
  // Outputs beyond (inputs - 1) * stride, and in whole blocks of `stride`.
  int64_t tail() const { return dilation * (taps - 1) + 1 - begin - end + extra; }
  int64_t blocks() const { return ceil_div(tail(), stride) - 1; }  // more than inputs
};

// The window around input q that all places together read, in the form of a convolution.
struct Reach {
  int64_t low = 0, high = 0;  // offsets, low <= 0 <= high
  int64_t pad_before() const { return -low; }
  int64_t kernel() const { return high - low + 1; }
};

Reach reach_of(const Axis& axis) {
  Reach reach;
  for (int64_t place = 0; place < axis.stride; ++place) {
    for (int64_t tap = 0; tap < axis.taps; ++tap) {
      if (!axis.reads(place, tap)) continue;
      reach.low = std::min(reach.low, axis.offset(place, tap));
      reach.high = std::max(reach.high, axis.offset(place, tap));
    }
  }
  reach.high = std::max(reach.high, -axis.blocks());  // padding behind is not negative
  return reach;
}

struct Geometry {
  Axis y, x;
  Reach down, along;
};

std::optional<Geometry> geometry(const Node& node, const Shape& weight) {
  const std::string automatic = node.attrs.text("auto_pad", "NOTSET");
  if (weight.size() != 4 || node.attrs.integer("group", 1) != 1 ||
      (automatic != "NOTSET" && automatic != "VALID") || node.attrs.has("output_shape"))
    return std::nullopt;
  const auto strides = node.attrs.integers("strides", {1, 1});
  const auto dilations = node.attrs.integers("dilations", {1, 1});
  const auto pads = node.attrs.integers("pads", {0, 0, 0, 0});
  const auto extra = node.attrs.integers("output_padding", {0, 0});
  if (strides.size() != 2 || dilations.size() != 2 || pads.size() != 4 || extra.size() != 2 ||
      strides[0] != strides[1] || strides[0] < 1 || strides[0] > 16 || weight[2] > 64 ||
      weight[3] > 64 || dilations[0] < 1 || dilations[1] < 1 || dilations[0] > 64 ||
      dilations[1] > 64)
    return std::nullopt;
  for (const int64_t v : {pads[0], pads[1], pads[2], pads[3], extra[0], extra[1]})
    if (v < 0 || v > 256) return std::nullopt;
  Geometry g{{weight[2], strides[0], dilations[0], pads[0], pads[2], extra[0]},
             {weight[3], strides[1], dilations[1], pads[1], pads[3], extra[1]},
             {},
             {}};
  g.down = reach_of(g.y), g.along = reach_of(g.x);
  return g;
}

// [C, N, kh, kw] -> [s * s * N, C, KH, KW], the place the slowest part of the channel.
Tensor places_as_channels(const Tensor& weight, const Geometry& g) {
  const Shape& from = weight.shape();
  const int64_t channels = from[0], outputs = from[1], s = g.y.stride;
  const int64_t kh = g.down.kernel(), kw = g.along.kernel();
  Tensor result(DType::kF32, {s * s * outputs, channels, kh, kw});
  const auto in = weight.as<float>();
  auto out = result.as<float>();
  std::fill(out.begin(), out.end(), 0.0f);
  for (int64_t row = 0; row < s * s * outputs * channels; ++row) {
    const int64_t c = row % channels, n = row / channels % outputs;
    const int64_t px = row / channels / outputs % s, py = row / channels / outputs / s;
    for (int64_t ty = 0; ty < from[2]; ++ty) {
      for (int64_t tx = 0; tx < from[3]; ++tx) {
        if (!g.y.reads(py, ty) || !g.x.reads(px, tx)) continue;
        const int64_t ky = g.y.offset(py, ty) - g.down.low, kx = g.x.offset(px, tx) - g.along.low;
        out[static_cast<size_t>((row * kh + ky) * kw + kx)] =
            in[static_cast<size_t>(((c * outputs + n) * from[2] + ty) * from[3] + tx)];
      }
    }
  }
  return result;
}

Tensor repeated(const Tensor& bias, int64_t times) {
  std::vector<float> values;
  for (int64_t i = 0; i < times; ++i)
    values.insert(values.end(), bias.as<float>().begin(), bias.as<float>().end());
  return Tensor::of<float>({static_cast<int64_t>(values.size())}, values);
}

class Rewriter {
 public:
  Rewriter(Graph& graph, NodeId id) : graph_(graph), old_(graph.node(id)), id_(id) {}

  bool run() {
    const Tensor* weight = floats(1);
    const bool biased = old_.inputs.size() > 2 && old_.inputs[2] != kNoValue;
    const Tensor* bias = biased ? floats(2) : nullptr;
    if (weight == nullptr || (biased && bias == nullptr)) return false;
    const auto g = geometry(old_, weight->shape());
    if (!g) return false;
    const int64_t s = g->y.stride;
    const auto crop = [](const Axis& axis) {  // outputs of the last block that are none
      return (axis.blocks() + 1) * axis.stride - axis.tail();
    };
    Tensor places = places_as_channels(*weight, *g);
    std::optional<Tensor> biases;
    if (biased) biases = repeated(*bias, s * s);
    std::vector<ValueId> inputs{old_.inputs[0],
                                graph_.add_constant(name_of_value(1), std::move(places))};
    if (biases) inputs.push_back(graph_.add_constant(name_of_value(2), std::move(*biases)));
    ValueId x = add(OpKind::kConv, "", std::move(inputs), conv_attributes(*g));
    if (s > 1) {
      Attrs attrs;
      attrs.set("blocksize", s);
      attrs.set("mode", std::string("DCR"));
      x = add(OpKind::kDepthToSpace, "/pixels", {x}, std::move(attrs));
    }
    x = cropped(x, 2, crop(g->y));
    x = cropped(x, 3, crop(g->x));
    finish(x);
    return true;
  }

 private:
  const Tensor* floats(size_t input) const {
    if (!graph_.is_constant(old_.inputs.at(input))) return nullptr;
    const Tensor& tensor = *graph_.value(old_.inputs[input]).constant;
    return tensor.dtype() == DType::kF32 ? &tensor : nullptr;
  }
  std::string name_of_value(size_t input) const {
    return graph_.value(old_.inputs[input]).name + "/places";
  }

  static Attrs conv_attributes(const Geometry& g) {
    const auto behind = [](const Axis& axis, const Reach& reach) {
      return axis.blocks() + reach.high;
    };
    Attrs attrs;
    attrs.set("kernel_shape", std::vector<int64_t>{g.down.kernel(), g.along.kernel()});
    attrs.set("pads", std::vector<int64_t>{g.down.pad_before(), g.along.pad_before(),
                                           behind(g.y, g.down), behind(g.x, g.along)});
    attrs.set("strides", std::vector<int64_t>{1, 1});
    attrs.set("dilations", std::vector<int64_t>{1, 1});
    attrs.set("group", int64_t{1});
    return attrs;
  }

  ValueId add(OpKind op, const std::string& suffix, std::vector<ValueId> inputs, Attrs attrs) {
    Value value;
    value.name = graph_.value(old_.outputs[0]).name + suffix + "/places";
    const ValueId out = graph_.add_value(std::move(value));
    graph_.add_node({op, old_.name + suffix, std::move(inputs), {out}, std::move(attrs)}, id_);
    return out;
  }

  // All but the last `count` places along an axis.
  ValueId cropped(ValueId x, int64_t axis, int64_t count) {
    if (count == 0) return x;
    const auto integer = [&](const char* what, int64_t v) {
      return graph_.add_constant(old_.name + "/crop" + std::to_string(axis) + what,
                                 Tensor::of<int64_t>({1}, {v}));
    };
    return add(OpKind::kSlice, "/crop" + std::to_string(axis),
               {x, integer("/start", 0), integer("/end", -count), integer("/axis", axis)}, {});
  }

  void finish(ValueId x) {
    const ValueId output = old_.outputs[0];
    graph_.remove_node(id_);
    const NodeId producer = graph_.value(x).producer;
    graph_.node(producer).outputs[0] = output;
    graph_.value(output).producer = producer;
    graph_.value(x).producer = -1;
  }

  Graph& graph_;
  const Node old_;
  NodeId id_;
};

}  // namespace

int rewrite_conv_transpose(Graph& graph) {
  std::vector<NodeId> nodes;
  for (const NodeId id : graph.order()) {
    if (graph.node(id).op == OpKind::kConvTranspose) nodes.push_back(id);
  }
  int count = 0;
  for (const NodeId id : nodes) count += Rewriter(graph, id).run() ? 1 : 0;
  if (count > 0) graph.remove_dead();
  return count;
}

}  // namespace repquant
