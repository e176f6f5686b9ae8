#include "repquant/graph/conv_transpose.h"

#include <gtest/gtest.h>

#include <random>

#include "repquant/graph/reference/reference.h"
#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;

struct Case {
  std::vector<int64_t> kernel, strides, pads, dilations, extra;
};

// [2, 5, H, W] by a transposed convolution to 3 channels.
Graph make(const Case& c, bool biased) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> draw(-1, 1);
  const auto values = [&](int64_t count) {
    std::vector<float> all(static_cast<size_t>(count));
    for (float& v : all) v = draw(random);
    return all;
  };
  GraphBuilder g;
  const ValueId x = g.input("x", {dim("batch"), dim(5), dim(4), dim(6)});
  const int64_t taps = c.kernel[0] * c.kernel[1];
  std::vector<ValueId> inputs{x,
                              g.floats("w", {5, 3, c.kernel[0], c.kernel[1]}, values(15 * taps))};
  if (biased) inputs.push_back(g.floats("b", {3}, values(3)));
  g.graph.outputs = {g.node(OpKind::kConvTranspose, inputs,
                            attributes({{"strides", c.strides},
                                        {"pads", c.pads},
                                        {"dilations", c.dilations},
                                        {"output_padding", c.extra}}),
                            "up")};
  infer_shapes(g.graph);
  return std::move(g.graph);
}

// The pixels of depth_to_space, which the reference does not cover, then the crops.
Tensor run(const Graph& graph, const Tensor& input) {
  reference::Bindings bindings;
  bindings.emplace(graph.inputs[0], input);
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.op != OpKind::kDepthToSpace) {
      EXPECT_TRUE(reference::evaluate(graph, std::vector<NodeId>{id}, bindings)) << node.name;
      continue;
    }
    const Tensor& in = bindings.at(node.inputs[0]);
    const int64_t b = node.attrs.integer("blocksize", 0), h = in.shape()[2], w = in.shape()[3];
    const int64_t channels = in.shape()[1] / b / b, n = in.shape()[0];
    Tensor out(DType::kF32, {n, channels, h * b, w * b});
    for (int64_t i = 0; i < out.size(); ++i) {
      const int64_t x = i % (w * b), y = i / (w * b) % (h * b);
      const int64_t c = i / (w * b * h * b) % channels, item = i / (w * b * h * b * channels);
      const int64_t from = (y % b * b + x % b) * channels + c;
      out.as<float>()[static_cast<size_t>(i)] = in.as<float>()[static_cast<size_t>(
          ((item * in.shape()[1] + from) * h + y / b) * w + x / b)];
    }
    bindings.emplace(node.outputs[0], std::move(out));
  }
  return bindings.at(graph.outputs[0]);
}

TEST(ConvTranspose, EqualsTheConvolutionOfItsPlaces) {
  const std::vector<Case> cases = {{{4, 4}, {2, 2}, {1, 1, 1, 1}, {1, 1}, {0, 0}},
                                   {{2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}, {0, 0}},
                                   {{3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, {1, 1}},
                                   {{3, 3}, {2, 2}, {1, 0, 0, 1}, {1, 1}, {0, 0}},
                                   {{5, 3}, {3, 3}, {2, 1, 0, 1}, {1, 1}, {0, 1}},
                                   {{3, 2}, {1, 1}, {1, 0, 1, 0}, {1, 1}, {0, 0}},
                                   {{3, 3}, {2, 2}, {0, 0, 0, 0}, {2, 3}, {1, 0}},
                                   {{2, 2}, {3, 3}, {0, 0, 0, 0}, {1, 1}, {2, 0}},
                                   {{4, 4}, {2, 2}, {3, 3, 3, 3}, {1, 1}, {0, 0}}};
  std::mt19937 random(6);
  Tensor input(DType::kF32, {2, 5, 4, 6});
  for (float& v : input.as<float>()) v = std::uniform_real_distribution<float>(-1, 1)(random);
  int number = 0;
  for (const Case& c : cases) {
    Graph graph = make(c, number % 2 == 0);
    const std::string shape = graph_testing::shape_text(graph, graph.outputs[0]);
    const Tensor want = run(graph, input);
    const std::string name = graph.value(graph.outputs[0]).name;
    EXPECT_EQ(rewrite_conv_transpose(graph), 1);
    infer_shapes(graph);
    graph.verify();
    EXPECT_EQ(graph_testing::shape_text(graph, graph.outputs[0]), shape);
    EXPECT_EQ(graph.value(graph.outputs[0]).name, name);
    const Tensor got = run(graph, input);
    ASSERT_EQ(got.shape(), want.shape()) << number;
    // Sums in double of the same products, rounded once.
    for (int64_t i = 0; i < want.size(); ++i) {
      const auto at = static_cast<size_t>(i);
      ASSERT_NEAR(got.as<float>()[at], want.as<float>()[at], 1e-6f) << number << " at " << i;
    }
    ++number;
  }
}

TEST(ConvTranspose, OthersStay) {
  const Case uneven{{3, 3}, {2, 1}, {0, 0, 0, 0}, {1, 1}, {0, 0}};
  Graph graph = make(uneven, true);
  EXPECT_EQ(rewrite_conv_transpose(graph), 0);
  EXPECT_EQ(graph.node(graph.order()[0]).op, OpKind::kConvTranspose);
}

}  // namespace
}  // namespace repquant
