// A small convolution network: what lowering makes of it, and the simulator against plain loops
// over fake-quantized values in the order of the graph, [C, H, W].
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "repquant/core/format/uniform.h"
#include "repquant/lower/lower.h"
#include "repquant/runtime/session.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

struct Image {
  int64_t c = 0, h = 0, w = 0;
  std::vector<double> x;
  Image(int64_t channels, int64_t height, int64_t width)
      : c(channels), h(height), w(width), x(static_cast<size_t>(channels * height * width)) {}
  double& at(int64_t k, int64_t i, int64_t j) {
    return x[static_cast<size_t>((k * h + i) * w + j)];
  }
  double get(int64_t k, int64_t i, int64_t j) const {
    const bool inside = i >= 0 && j >= 0 && i < h && j < w;
    return inside ? x[static_cast<size_t>((k * h + i) * w + j)] : 0.0;
  }
};

struct Layer {
  int64_t n, c, kernel, stride, groups;
  std::vector<int64_t> pads;  // top, left, bottom, right
  std::vector<float> weight, bias;
  QParams input, weight_site;
};

constexpr int kBits = 8;

class Network {
 public:
  explicit Network(uint32_t seed) : random_(seed) {
    Value v;
    v.name = "image";
    v.shape = std::vector<Dim>{{-1, "batch"}, {3, {}}, {9, {}}, {8, {}}};
    const ValueId image = graph.add_value(std::move(v));
    graph.inputs = {image};
    // Pad on the right and below as a node of its own, folded into the first convolution.
    const ValueId padded = node(
        OpKind::kPad, "pad", {image, integers("pad.sizes", {0, 0, 0, 0, 0, 0, 1, 1})}, {3, 10, 9});
    ValueId x = conv("first", padded, {8, 3, 3, 2, 1, {0, 0, 0, 0}}, {8, 4, 4});
    x = node(OpKind::kRelu, "relu", {x}, {8, 4, 4});
    const ValueId skip = x;
    x = conv("depth", x, {8, 8, 3, 1, 8, {1, 1, 1, 1}}, {8, 4, 4});
    x = node(OpKind::kClip, "clip", {x, scalar("clip.low", 0.0f), scalar("clip.high", 6.0f)},
             {8, 4, 4});
    x = conv("point", x, {12, 8, 1, 1, 1, {0, 0, 0, 0}}, {12, 4, 4});
    // Option A shortcut: more channels by zeros.
    const ValueId wide =
        node(OpKind::kPad, "widen", {skip, integers("widen.sizes", {0, 2, 0, 0, 0, 2, 0, 0})},
             {12, 4, 4});
    x = node(OpKind::kAdd, "add", {wide, x}, {12, 4, 4});
    x = conv("last", x, {5, 12, 3, 1, 1, {2, 1, 0, 1}}, {5, 4, 4});
    Attrs mean;
    mean.set("axes", std::vector<int64_t>{2, 3});
    mean.set("keepdims", int64_t{0});
    x = node(OpKind::kReduceMean, "mean", {x}, {5}, mean);
    graph.outputs = {x};
    graph.name = "cnn";
  }

  std::vector<double> expected(const std::vector<float>& image) const {
    Image x(3, 9, 8);
    for (size_t i = 0; i < image.size(); ++i) x.x[i] = static_cast<double>(image[i]);
    Image wider(3, 10, 9);
    for (int64_t k = 0; k < 3; ++k)
      for (int64_t i = 0; i < 9; ++i)
        for (int64_t j = 0; j < 8; ++j) wider.at(k, i, j) = x.get(k, i, j);
    Image y = clamp(convolve(layers[0], wider), 0, 1e30);
    const Image skip = y;
    y = clamp(convolve(layers[1], y), 0, 6);
    y = convolve(layers[2], y);
    for (int64_t k = 0; k < 8; ++k)
      for (int64_t i = 0; i < 4; ++i)
        for (int64_t j = 0; j < 4; ++j) y.at(k + 2, i, j) += skip.get(k, i, j);
    y = convolve(layers[3], y);
    std::vector<double> out;
    for (int64_t k = 0; k < y.c; ++k) {
      double sum = 0;
      for (int64_t i = 0; i < y.h * y.w; ++i) sum += y.x[static_cast<size_t>(k * y.h * y.w + i)];
      out.push_back(sum / static_cast<double>(y.h * y.w));
    }
    return out;
  }

  Graph graph;
  QuantPlan plan;
  std::vector<Layer> layers;

 private:
  static Image clamp(Image x, double low, double high) {
    for (double& v : x.x) v = std::min(std::max(v, low), high);
    return x;
  }

  static Image convolve(const Layer& l, const Image& image) {
    Image x = image;
    const float s = l.input.scale[0];
    for (double& v : x.x)
      v = static_cast<double>(dequantize_uniform(
          quantize_uniform(static_cast<float>(v), inverse_scale(s), l.input.zero_point[0], 0, 255),
          s, l.input.zero_point[0]));
    const auto along = [&](int64_t size, int64_t a, int64_t b) {
      return (size + a + b - l.kernel) / l.stride + 1;
    };
    Image y(l.n, along(x.h, l.pads[0], l.pads[2]), along(x.w, l.pads[1], l.pads[3]));
    const int64_t each = l.c / l.groups;
    for (int64_t n = 0; n < l.n; ++n)
      for (int64_t i = 0; i < y.h; ++i)
        for (int64_t j = 0; j < y.w; ++j) {
          double sum = static_cast<double>(l.bias[static_cast<size_t>(n)]);
          for (int64_t c = 0; c < each; ++c)
            for (int64_t ky = 0; ky < l.kernel; ++ky)
              for (int64_t kx = 0; kx < l.kernel; ++kx)
                sum += static_cast<double>(l.weight[static_cast<size_t>(
                           ((n * each + c) * l.kernel + ky) * l.kernel + kx)]) *
                       x.get(l.groups == 1 ? c : n, i * l.stride + ky - l.pads[0],
                             j * l.stride + kx - l.pads[1]);
          y.at(n, i, j) = sum;
        }
    return y;
  }

  ValueId node(OpKind op, const std::string& name, std::vector<ValueId> inputs, const Shape& item,
               Attrs attrs = {}) {
    Value v;
    v.name = name + ".out";
    std::vector<Dim> shape{{-1, "batch"}};
    for (const int64_t d : item) shape.push_back({d, {}});
    v.shape = shape;
    Node n{op, name, std::move(inputs), {graph.add_value(std::move(v))}, std::move(attrs)};
    const ValueId out = n.outputs[0];
    last_ = graph.add_node(std::move(n));
    return out;
  }
  ValueId integers(const std::string& name, const std::vector<int64_t>& values) {
    return graph.add_constant(name,
                              Tensor::of<int64_t>({static_cast<int64_t>(values.size())}, values));
  }
  ValueId scalar(const std::string& name, float value) {
    return graph.add_constant(name, Tensor::scalar<float>(value));
  }

  ValueId conv(const std::string& name, ValueId x, Layer l, const Shape& item) {
    const int64_t depth = l.c / l.groups * l.kernel * l.kernel;
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(depth)));
    l.weight_site.spec = {kBits, Uniform{true, true, true}, PerChannel{0}, {}};
    for (int64_t n = 0; n < l.n; ++n) {
      const float s = symmetric_scale(4.0 / std::sqrt(static_cast<double>(depth)), kBits, true) *
                      (1.0f + 0.1f * static_cast<float>(n));
      l.weight_site.scale.push_back(s);
      l.weight_site.zero_point.push_back(0);
      for (int64_t k = 0; k < depth; ++k)
        l.weight.push_back(s * static_cast<float>(std::lround(
                                   std::min(std::max(normal(random_) / s, -127.0f), 127.0f))));
      l.bias.push_back(0.3f * normal(random_));
    }
    const UniformParams u = uniform_from_range(-3.5, 4.5, kBits, true);
    l.input.spec.bits = kBits;
    l.input.spec.format = Uniform{};
    l.input.scale = {u.scale};
    l.input.zero_point = {u.zero};
    Attrs attrs;
    attrs.set("group", l.groups);
    attrs.set("strides", std::vector<int64_t>{l.stride, l.stride});
    attrs.set("pads", l.pads);
    attrs.set("kernel_shape", std::vector<int64_t>{l.kernel, l.kernel});
    const ValueId w = graph.add_constant(
        name + ".weight", Tensor::of<float>({l.n, l.c / l.groups, l.kernel, l.kernel}, l.weight));
    const ValueId b = graph.add_constant(name + ".bias", Tensor::of<float>({l.n}, l.bias));
    const ValueId out = node(OpKind::kConv, name, {x, w, b}, item, attrs);
    plan.set({last_, 0}, {Role::kActivation, l.input, "test"});
    plan.set({last_, 1}, {Role::kWeight, l.weight_site, "test"});
    layers.push_back(l);
    return out;
  }

  std::mt19937 random_;
  NodeId last_ = -1;
};

std::map<std::string, int> count_ops(const Plan& plan) {
  std::map<std::string, int> count;
  for (const Step& step : plan.steps) ++count[step.op];
  return count;
}

TEST(Convolution, LowersWithoutMovingImages) {
  const Network network(1);
  const Plan plan = lower(network.graph, network.plan);
  const auto ops = count_ops(plan);
  EXPECT_EQ(ops.at("transpose"), 1);  // of the input alone
  EXPECT_EQ(ops.at("conv"), 2);       // first and last; the 1 x 1 reads its image as rows
  EXPECT_EQ(ops.at("linear"), 1);
  EXPECT_EQ(ops.at("depthwise"), 1);
  EXPECT_EQ(ops.at("pad"), 1);         // the shortcut's; the other is part of the first windows
  EXPECT_EQ(ops.at("activation"), 1);  // ReLU, read by the shortcut in f32; the clip is in codes
}

TEST(Convolution, SimulatorFollowsTheGraphAndRuntimeTheSimulator) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    const Network network(seed);
    const Plan plan = lower(network.graph, network.plan);
    std::mt19937 random(seed + 50);
    std::vector<float> image(3 * 9 * 8);
    for (float& v : image) v = std::normal_distribution<float>(0.0f, 1.2f)(random);
    const Tensor input = Tensor::of<float>({1, 3, 9, 8}, image);
    const Tensor simulated = Simulator(plan).run({input}, {}).at(0);
    const std::vector<double> want = network.expected(image);
    // Between layers a code may differ by one where a value lies on a tie: one step of 8/255 in a
    // few of 192 summed values, with weights of size 1/sqrt(depth), then a mean over 16 places.
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_NEAR(static_cast<double>(simulated.as<float>()[i]), want[i], 0.01) << seed;
    for (const std::string& isa : runtime::available_isas()) {
      Session session(Program::from_plan(plan, {.isa = isa}));
      Tensor answer(DType::kF32, simulated.shape());
      const ConstTensorView in = input.view();
      const TensorView out = answer.view();
      session.run({&in, 1}, {&out, 1});
      EXPECT_EQ(std::memcmp(answer.data(), simulated.data(), simulated.bytes()), 0) << isa;
    }
  }
}

}  // namespace
}  // namespace repquant
