#include "repquant/graph/fold_batch_norm.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "repquant/graph/reference/reference.h"
#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;

struct Random {
  std::mt19937 engine{7};
  std::vector<float> floats(int64_t count, float low = -1, float high = 1) {
    std::uniform_real_distribution<float> draw(low, high);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = draw(engine);
    return values;
  }
};

ValueId add_norm(GraphBuilder& g, Random& random, ValueId x, int64_t channels) {
  const auto part = [&](const char* name, float low, float high) {
    return g.floats(std::string("bn.") + name, {channels}, random.floats(channels, low, high));
  };
  const ValueId gamma = part("weight", -2, 2), beta = part("bias", -1, 1);
  const ValueId mean = part("mean", -1, 1), variance = part("var", 0.01f, 4);
  return g.node(OpKind::kBatchNorm, {x, gamma, beta, mean, variance},
                attributes({{"epsilon", 1e-3f}}), "bn");
}

std::vector<double> run(const Graph& graph, const Tensor& input) {
  reference::Bindings bindings;
  bindings.emplace(graph.inputs[0], input);
  std::vector<const Node*> nodes;
  for (const NodeId id : graph.order()) nodes.push_back(&graph.node(id));
  EXPECT_TRUE(reference::evaluate_widened(graph, nodes, bindings));
  const Tensor& out = bindings.at(graph.outputs[0]);
  return {out.as<double>().begin(), out.as<double>().end()};
}

// Both sides are evaluated in double, so what remains is the rounding of the folded weights and
// bias to float: a relative 2^-24 of every product and of the bias, bounded by the largest
// magnitudes. The input is within [-1, 1].
void expect_same(GraphBuilder& g, const Shape& shape, int64_t products, int expected_nodes) {
  infer_shapes(g.graph);
  g.graph.verify();
  Random random;
  random.engine.seed(3);
  const Tensor input = Tensor::of<float>(shape, random.floats(element_count(shape)));
  const auto before = run(g.graph, input);
  EXPECT_EQ(fold_batch_norm(g.graph), 1);
  g.graph.verify();
  infer_shapes(g.graph);
  EXPECT_EQ(static_cast<int>(g.graph.order().size()), expected_nodes);
  double largest = 1;
  for (const NodeId id : g.graph.order()) {
    for (const ValueId v : g.graph.node(id).inputs) {
      if (!g.graph.is_constant(v)) continue;
      for (const float w : g.graph.value(v).constant->as<float>())
        largest = std::max(largest, std::fabs(static_cast<double>(w)));
    }
  }
  const double bound = static_cast<double>(products + 1) * largest * 0x1p-24 * 2;
  const auto after = run(g.graph, input);
  ASSERT_EQ(after.size(), before.size());
  double worst = 0;
  for (size_t i = 0; i < after.size(); ++i)
    worst = std::max(worst, std::fabs(after[i] - before[i]));
  EXPECT_LE(worst, bound);
  EXPECT_EQ(fold_batch_norm(g.graph), 0);
}

TEST(FoldBatchNorm, IntoConvolution) {
  GraphBuilder g;
  Random random;
  const ValueId x = g.input("x", {dim(2), dim(4), dim(5), dim(5)});
  const ValueId w = g.floats("conv.weight", {6, 2, 3, 3}, random.floats(108));
  const ValueId b = g.floats("conv.bias", {6}, random.floats(6));
  const ValueId y = g.node(OpKind::kConv, {x, w, b}, attributes({{"group", int64_t{2}}}), "conv");
  g.graph.outputs = {add_norm(g, random, y, 6)};
  expect_same(g, {2, 4, 5, 5}, 18, 1);
  EXPECT_EQ(g.graph.value(g.graph.node(g.graph.order()[0]).inputs[1]).name, "conv.weight");
}

TEST(FoldBatchNorm, IntoTransposedConvolutionWithGroupsAndNoBias) {
  GraphBuilder g;
  Random random;
  const ValueId x = g.input("x", {dim(1), dim(4), dim(3), dim(3)});
  const ValueId w = g.floats("up.weight", {4, 3, 2, 2}, random.floats(48));
  const ValueId y =
      g.node(OpKind::kConvTranspose, {x, w},
             attributes({{"group", int64_t{2}}, {"strides", std::vector<int64_t>{2, 2}}}), "up");
  g.graph.outputs = {add_norm(g, random, y, 6)};
  expect_same(g, {1, 4, 3, 3}, 8, 1);
  EXPECT_EQ(g.graph.value(g.graph.node(g.graph.order()[0]).inputs[2]).name, "up.bias");
}

TEST(FoldBatchNorm, IntoGemmWithBetaAndSharedWeight) {
  GraphBuilder g;
  Random random;
  const ValueId x = g.input("x", {dim(3), dim(5)});
  const ValueId w = g.floats("fc.weight", {5, 5}, random.floats(25));
  const ValueId c = g.floats("c", {}, {0.5f});
  const ValueId h =
      g.node(OpKind::kGemm, {x, w}, {}, "first");  // reads the same weight, must not change
  const ValueId y =
      g.node(OpKind::kGemm, {h, w, c}, attributes({{"alpha", 0.5f}, {"beta", 3.0f}}), "second");
  g.graph.outputs = {add_norm(g, random, y, 5)};
  // Inner values reach 5 in magnitude, five products each.
  expect_same(g, {3, 5}, 5 * 5, 2);
}

TEST(FoldBatchNorm, IntoLinearOnlyWhereTheChannelIsTheFeature) {
  for (const bool matrix : {true, false}) {
    GraphBuilder g;
    Random random;
    const Shape shape = matrix ? Shape{4, 6} : Shape{4, 6, 6};
    SymbolicShape symbolic;
    for (const int64_t size : shape) symbolic.push_back(dim(size));
    const ValueId x = g.input("x", symbolic);
    const ValueId w = g.floats("fc.weight", {6, 6}, random.floats(36));
    const ValueId y = g.node(OpKind::kLinear, {x, w}, {}, "fc");
    g.graph.outputs = {add_norm(g, random, y, 6)};
    expect_same(g, shape, 12, matrix ? 1 : 3);
  }
}

TEST(FoldBatchNorm, IntoArithmeticWhereThereIsNoProducer) {
  GraphBuilder g;
  Random random;
  const ValueId x = g.input("x", {dim(2), dim(3), dim(4)});
  g.graph.outputs = {add_norm(g, random, x, 3)};
  expect_same(g, {2, 3, 4}, 1, 2);
  EXPECT_EQ(g.graph.node(g.graph.order()[0]).op, OpKind::kMul);
  EXPECT_EQ(g.graph.node(g.graph.order()[1]).op, OpKind::kAdd);
}

TEST(FoldBatchNorm, LeavesAProducerWithOtherReaders) {
  GraphBuilder g;
  Random random;
  const ValueId x = g.input("x", {dim(1), dim(2), dim(3)});
  const ValueId w = g.floats("conv.weight", {2, 2, 1}, random.floats(4));
  const ValueId y = g.node(OpKind::kConv, {x, w}, {}, "conv");
  const ValueId z = add_norm(g, random, y, 2);
  g.graph.outputs = {g.node(OpKind::kAdd, {y, z}, {}, "sum")};
  expect_same(g, {1, 2, 3}, 2, 4);
}

TEST(FoldBatchNorm, RefusesWhatContradicts) {
  const auto fold = [](int64_t channels, float variance) {
    GraphBuilder g;
    const ValueId x = g.input("x", {dim(1), dim(2), dim(3)});
    const auto part = [&](float v) {
      return g.floats("p", {channels}, std::vector<float>(static_cast<size_t>(channels), v));
    };
    g.graph.outputs = {
        g.node(OpKind::kBatchNorm, {x, part(1), part(0), part(0), part(variance)}, {}, "bn")};
    infer_shapes(g.graph);
    fold_batch_norm(g.graph);
  };
  EXPECT_NO_THROW(fold(2, 1));
  EXPECT_NO_THROW(fold(2, 0));      // a constant channel: epsilon carries it
  EXPECT_THROW(fold(3, 1), Error);
  EXPECT_THROW(fold(2, -1), Error);
}

TEST(FoldAffine, OutputsKeepTheirNames) {
  Random random;
  GraphBuilder g;
  const ValueId x = g.input("x", {dim(2), dim(4), dim(5), dim(5)});
  const ValueId conv = g.node(OpKind::kConv, {x, g.floats("w", {6, 4, 1, 1}, random.floats(24))},
                              attributes({{"kernel_shape", std::vector<int64_t>{1, 1}}}));
  const ValueId y = g.node(OpKind::kMul, {conv, g.floats("a", {}, {2})});
  g.graph.outputs = {y};
  infer_shapes(g.graph);
  g.graph.value(y).name = "score";
  EXPECT_EQ(fold_affine(g.graph), 1);
  g.graph.verify();
  EXPECT_EQ(g.graph.value(g.graph.outputs[0]).name, "score");
}

// y = a x + b with one number or one a channel; a sum over positions stays.
TEST(FoldAffine, ProductsAndSumsBehindAConvolutionGoIntoIt) {
  for (const bool by_channel : {false, true}) {
    Random random;
    GraphBuilder g;
    const Shape shape = by_channel ? Shape{6, 1, 1} : Shape{1};
    const auto n = static_cast<int64_t>(by_channel ? 6 : 1);
    ValueId x = g.input("x", {dim(2), dim(4), dim(5), dim(5)});
    const std::vector<ValueId> inputs{x, g.floats("w", {6, 4, 3, 3}, random.floats(6 * 36)),
                                      g.floats("b", {6}, random.floats(6))};
    x = g.node(OpKind::kConv, inputs,
               attributes({{"kernel_shape", std::vector<int64_t>{3, 3}},
                           {"pads", std::vector<int64_t>{1, 1, 1, 1}},
                           {"strides", std::vector<int64_t>{1, 1}}}));
    x = g.node(OpKind::kMul, {g.floats("a", shape, random.floats(n, 0.5f, 2)), x});
    x = g.node(OpKind::kAdd, {x, g.floats("c", shape, random.floats(n))});
    x = g.node(OpKind::kAdd, {x, g.floats("positions", {5, 5}, random.floats(25))});
    g.graph.outputs = {x};
    infer_shapes(g.graph);
    const Tensor input = Tensor::of<float>({2, 4, 5, 5}, random.floats(200));
    const std::vector<double> before = run(g.graph, input);
    EXPECT_EQ(fold_affine(g.graph), 2);
    g.graph.verify();
    EXPECT_EQ(g.graph.order().size(), 2u);
    const std::vector<double> after = run(g.graph, input);
    // Weights (up to 2, 36 of them, of inputs up to 1) and the bias are rounded once or twice each:
    // 2^-24 (2 * 36 * 2 + 2 * 4).
    for (size_t i = 0; i < before.size(); ++i)
      EXPECT_NEAR(after[i], before[i], 152 * std::exp2(-24)) << i;
  }
}

}  // namespace
}  // namespace repquant
