#pragma once
// A small random convolution network as a workspace: uneven channels, as trained ones are.
#include <cmath>
#include <random>

#include "repquant/graph/testing.h"
#include "repquant/methods/testing.h"

namespace repquant::testing {

class TinyCnn {
 public:
  // image 3x12x12 -> conv, relu6, depthwise, relu6, 1x1, relu, 3x3, relu, mean, linear
  TinyCnn() {
    using graph_testing::attributes;
    using graph_testing::dim;
    ValueId x = b_.input("image", {dim("batch"), dim(3), dim(12), dim(12)});
    x = conv("first", x, 8, 3, 3, 1);
    x = clip("relu6", x);
    x = conv("depth", x, 8, 1, 3, 8);
    x = clip("relu6b", x);
    x = conv("point", x, 12, 8, 1, 1);
    x = b_.node(OpKind::kRelu, {x}, {}, "relu");
    x = conv("last", x, 10, 12, 3, 1);
    x = b_.node(OpKind::kRelu, {x}, {}, "relub");
    x = b_.node(OpKind::kReduceMean, {x, b_.integers({2, 3})},
                attributes({{"keepdims", int64_t{0}}}), "mean");
    x = b_.node(OpKind::kLinear, {x, uneven("head.w", {5, 10}), normal("head.b", {5}, 0.1f)}, {},
                "head");
    b_.graph.outputs = {x};
    b_.graph.name = "tiny_cnn";
    infer_shapes(b_.graph);
  }
  Graph graph() { return std::move(b_.graph); }

 private:
  ValueId normal(const std::string& name, Shape shape, float scale) {
    std::vector<float> values(static_cast<size_t>(element_count(shape)));
    std::normal_distribution<float> distribution(0.0f, scale);
    for (float& v : values) v = distribution(random_);
    return b_.floats(name, std::move(shape), values);
  }
  // Rows whose magnitudes spread over e^-1.5 .. e^1.5.
  ValueId uneven(const std::string& name, Shape shape) {
    const auto n = static_cast<size_t>(shape[0]), k = static_cast<size_t>(element_count(shape)) / n;
    std::vector<float> values(n * k);
    std::normal_distribution<float> distribution(0.0f, 1.0f / std::sqrt(static_cast<float>(k)));
    std::uniform_real_distribution<float> spread(-1.5f, 1.5f);
    for (size_t i = 0; i < n; ++i) {
      const float row = std::exp(spread(random_));
      for (size_t j = 0; j < k; ++j) values[i * k + j] = row * distribution(random_);
    }
    return b_.floats(name, std::move(shape), values);
  }
  ValueId conv(const std::string& name, ValueId x, int64_t n, int64_t c, int64_t kernel,
               int64_t groups) {
    const int64_t pad = kernel / 2;
    const ValueId w = uneven(name + ".w", {n, c, kernel, kernel}),
                  b = normal(name + ".b", {n}, 0.5f);
    return b_.node(
        OpKind::kConv, {x, w, b},
        graph_testing::attributes({{"group", groups},
                                   {"kernel_shape", std::vector<int64_t>{kernel, kernel}},
                                   {"pads", std::vector<int64_t>{pad, pad, pad, pad}},
                                   {"strides", std::vector<int64_t>{1, 1}},
                                   {"dilations", std::vector<int64_t>{1, 1}}}),
        name);
  }
  ValueId clip(const std::string& name, ValueId x) {
    return b_.node(OpKind::kClip,
                   {x, b_.floats(name + ".0", {}, {0}), b_.floats(name + ".6", {}, {6})}, {}, name);
  }

  graph_testing::GraphBuilder b_;
  std::mt19937 random_{7};
};

// The pool must outlive the workspace. The first convolution takes 8 bits.
inline Workspace tiny_cnn_workspace(ThreadPool& pool, int weight_bits, int activation_bits,
                                    int64_t samples = 24) {
  Workspace ws = make_workspace(TinyCnn().graph());
  torch::manual_seed(5);
  const at::Tensor images = at::randn({samples, 3, 12, 12});
  ws.calibration = {samples,
                    [images](int64_t b, int64_t e) { return images.slice(0, b, e).contiguous(); }};
  ws.pool = &pool;
  make_parameters_explicit(ws);
  ws.reference = ws.weights;
  for (const NodeId id : ws.graph.order()) {
    const OpKind op = ws.graph.node(id).op;
    if (op != OpKind::kConv && op != OpKind::kLinear) continue;
    const bool first = ws.graph.node(id).name == "first";
    ws.targets[{id, 0}] = {Role::kActivation, first ? 8 : activation_bits, "auto", false};
    ws.targets[{id, 1}] = {Role::kWeight, first ? 8 : weight_bits, "auto", false};
  }
  return ws;
}

}  // namespace repquant::testing
