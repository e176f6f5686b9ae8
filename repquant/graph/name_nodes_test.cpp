#include "repquant/graph/name_nodes.h"

#include <gtest/gtest.h>

#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::dim;
using graph_testing::GraphBuilder;
using enum OpKind;

struct Block : GraphBuilder {
  ValueId weight(const std::string& name) { return floats(name, {4, 4}, std::vector<float>(16)); }
  ValueId vector(const std::string& name) { return floats(name, {4}, std::vector<float>(4)); }
  const std::string& name(ValueId id) const { return graph.node(graph.value(id).producer).name; }
};

TEST(NameNodes, AfterParameters) {
  Block g;
  const ValueId x = g.input("x", {dim("n"), dim(4)});
  const ValueId norm =
      g.node(kLayerNorm, {x, g.vector("b.0.norm1.weight"), g.vector("b.0.norm1.bias")}, {}, "l");
  const ValueId fc1 =
      g.node(kLinear, {norm, g.weight("onnx::MatMul_12"), g.vector("b.0.mlp.fc1.bias")}, {}, "m");
  const ValueId act = g.node(kGelu, {fc1}, {}, "g");
  const ValueId fc2 = g.node(kLinear, {act, g.weight("b.0.mlp.fc2.weight")}, {}, "k");
  const ValueId again =
      g.node(kLinear, {fc2, g.graph.node(g.graph.value(fc2).producer).inputs[1]}, {}, "s");
  g.graph.outputs = {again};
  for (int round = 0; round < 2; ++round) {   // the second changes nothing
    name_nodes(g.graph);
    g.graph.verify();
    EXPECT_EQ(g.name(norm), "b.0.norm1");
    EXPECT_EQ(g.name(fc1), "b.0.mlp.fc1");
    EXPECT_EQ(g.name(act), "b.0.mlp.act");
    EXPECT_EQ(g.name(fc2), "b.0.mlp.fc2");
    EXPECT_EQ(g.name(again), "b.0.mlp.fc2_2");
    EXPECT_EQ(g.graph.value(g.graph.node(g.graph.value(fc1).producer).inputs[1]).name,
              "b.0.mlp.fc1.weight");
  }
}

TEST(NameNodes, ByPlaceWhereNamesAreLost) {
  Block g;
  const ValueId x = g.input("x", {dim("n"), dim("t"), dim(4)});
  const ValueId norm = g.node(kRmsNorm, {x, g.vector("layers.3.norm.weight")}, {}, "r");
  std::vector<ValueId> qkv;
  for (int i = 0; i < 3; ++i)
    qkv.push_back(
        g.node(kLinear, {norm, g.weight(fmt::format("val_{}", i))}, {}, fmt::format("p{}", i)));
  const ValueId rotated = g.node(kMul, {qkv[0], qkv[0]}, {}, "rotary");
  const ValueId attention = g.node(kMultiHeadAttention, {rotated, qkv[1], qkv[2]}, {}, "softmax");
  const ValueId out = g.node(kLinear, {attention, g.weight("val_9")}, {}, "o");
  g.graph.outputs = {out};
  name_nodes(g.graph);
  EXPECT_EQ(g.name(qkv[0]), "layers.3.attn.q");
  EXPECT_EQ(g.name(qkv[1]), "layers.3.attn.k");
  EXPECT_EQ(g.name(qkv[2]), "layers.3.attn.v");
  EXPECT_EQ(g.name(attention), "layers.3.attn");
  EXPECT_EQ(g.name(out), "layers.3.attn.proj");
  EXPECT_EQ(g.name(rotated), "rotary");
}

TEST(NameNodes, FromModulePaths) {
  Block g;
  const ValueId x = g.input("x", {dim("n"), dim(4)});
  const ValueId y =
      g.node(kLinear, {x, g.weight("onnx::MatMul_7")}, {}, "/encoder/layer.0/query/MatMul");
  const ValueId z = g.node(kLinear, {y, g.weight("w")}, {}, "/MatMul");
  g.graph.outputs = {z};
  name_nodes(g.graph);
  EXPECT_EQ(g.name(y), "encoder.layer.0.query");
  EXPECT_EQ(g.name(z), "/MatMul");
}

}  // namespace
}  // namespace repquant
