#include "repquant/observe/blocks.h"

#include <gtest/gtest.h>

#include "repquant/graph/testing.h"

namespace repquant::observe {
namespace {

// Chains of layers with activations, one with a residual sum: every node is in one block, blocks
// begin where the one before ends, and the last layer is alone.
TEST(Blocks, WithoutAttentionTheyArePairsOfLayers) {
  graph_testing::GraphBuilder g;
  ValueId x = g.input("x", {graph_testing::dim(2), graph_testing::dim(4)});
  const ValueId w = g.floats("w", {4, 4}, std::vector<float>(16, 0.5f));
  const auto layer = [&](ValueId in) {
    return g.node(OpKind::kRelu, {g.node(OpKind::kLinear, {in, w})});
  };
  for (int i = 0; i < 4; ++i) x = layer(x);
  x = g.node(OpKind::kAdd, {x, layer(layer(x))});
  g.graph.outputs = {g.node(OpKind::kLinear, {x, w})};
  infer_shapes(g.graph);
  const std::vector<Block> found = blocks(g.graph);
  std::vector<NodeId> nodes;
  std::vector<int> layers;
  ValueId input = g.graph.inputs[0];
  for (const Block& block : found) {
    EXPECT_EQ(block.input, input);
    input = block.output;
    layers.push_back(0);
    for (const NodeId id : block.nodes) {
      nodes.push_back(id);
      layers.back() += g.graph.node(id).op == OpKind::kLinear ? 1 : 0;
    }
  }
  EXPECT_EQ(input, g.graph.outputs[0]);
  EXPECT_EQ(nodes, g.graph.order());
  EXPECT_EQ(layers, (std::vector<int>{1, 2, 1, 2, 1}));
  EXPECT_EQ(found.front().name, "stem");
  EXPECT_EQ(found.back().name, "head");
}

// What a fold rewrites for a layer is in the layer's block, whose output then stays.
TEST(Blocks, NormsAndProductsGoWithTheLayerBehindThem) {
  graph_testing::GraphBuilder g;
  ValueId x = g.input("x", {graph_testing::dim(2), graph_testing::dim(4)});
  const ValueId w = g.floats("w", {4, 4}, std::vector<float>(16, 0.5f));
  const ValueId a = g.floats("a", {4}, std::vector<float>(4, 2.0f));
  for (int i = 0; i < 5; ++i) {
    x = g.node(OpKind::kRelu, {g.node(OpKind::kLinear, {x, w})});
    x = i % 2 == 0 ? g.node(OpKind::kLayerNorm, {x, a, a})
                   : g.node(OpKind::kAdd, {g.node(OpKind::kMul, {x, a}), a});
  }
  g.graph.outputs = {g.node(OpKind::kLinear, {x, w})};
  infer_shapes(g.graph);
  std::vector<NodeId> nodes;
  for (const Block& block : blocks(g.graph)) {
    nodes.insert(nodes.end(), block.nodes.begin(), block.nodes.end());
    EXPECT_NE(block.nodes.size(), 0u);
    const OpKind last = g.graph.node(g.graph.value(block.output).producer).op;
    EXPECT_TRUE(last == OpKind::kRelu || last == OpKind::kLinear) << block.name;
  }
  EXPECT_EQ(nodes, g.graph.order());
}

}  // namespace
}  // namespace repquant::observe
