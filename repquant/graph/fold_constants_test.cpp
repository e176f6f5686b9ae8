#include "repquant/graph/fold_constants.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;
using testing::ElementsAre;
using enum OpKind;

std::vector<int64_t> target_of(const Graph& graph, ValueId output) {
  const Node& node = graph.node(graph.value(output).producer);
  if (!graph.is_constant(node.inputs[1])) return {-12345};
  const auto span = graph.value(node.inputs[1]).constant->as<int64_t>();
  return {span.begin(), span.end()};
}

std::vector<OpKind> ops(const Graph& graph) {
  std::vector<OpKind> out;
  for (const NodeId id : graph.order()) out.push_back(graph.node(id).op);
  return out;
}

struct Folding : GraphBuilder {
  // fold_constants, twice: the second changes nothing.
  void fold(std::vector<ValueId> outputs) {
    graph.outputs = std::move(outputs);
    fold_constants(graph);
    graph.verify();
    const std::string once = print(graph);
    fold_constants(graph);
    EXPECT_EQ(print(graph), once);
  }
  // Gather(Shape(x), i) as [1]
  ValueId size_of_axis(ValueId x, int64_t axis) {
    const ValueId one =
        node(kGather, {node(kShape, {x}), integer(axis)}, attributes({{"axis", int64_t{0}}}));
    return node(kUnsqueeze, {one, integers({0})});
  }
  ValueId concat(std::vector<ValueId> parts) {
    return node(kConcat, std::move(parts), attributes({{"axis", int64_t{0}}}));
  }
};

TEST(FoldConstants, EvaluatesWhatIsKnown) {
  Folding g;
  const ValueId x = g.input("x", {dim("n"), dim(2)});
  const ValueId sum = g.node(kAdd, {g.floats("a", {2}, {1, 2}), g.floats("b", {2}, {3, 4})});
  const ValueId y = g.node(kMul, {x, g.node(kTranspose, {sum})});
  g.fold({y});
  EXPECT_THAT(ops(g.graph), ElementsAre(kMul));
  const Node& mul = g.graph.node(g.graph.order()[0]);
  EXPECT_THAT(g.graph.value(mul.inputs[1]).constant->as<float>(), ElementsAre(4, 6));
}

TEST(FoldConstants, KeepsOutputsAndLargeResults) {
  Folding g;
  const ValueId x = g.input("x", {dim(1)});
  const ValueId kept = g.node(kNeg, {g.floats("a", {1}, {1})});
  const ValueId large =
      g.node(kExpand, {g.floats("b", {1}, {1}), g.integers({32 << 20})});   // 128 MiB
  const ValueId y = g.node(kAdd, {x, large});
  g.fold({kept, y});
  EXPECT_EQ(g.graph.outputs[0], kept);
  EXPECT_FALSE(g.graph.is_constant(kept));
  EXPECT_FALSE(g.graph.is_constant(large));
}

TEST(FoldConstants, RemovesNodesWithoutEffect) {
  Folding g;
  const ValueId x = g.input("x", {dim("n"), dim(2), dim(3)});
  ValueId y = g.node(kIdentity, {x});
  y = g.node(kDropout, {y});
  y = g.node(kCast, {y}, attributes({{"to", int64_t{1}}}));
  y = g.node(kReshape, {y, g.integers({-1, 2, 3})});
  y = g.node(kTranspose, {y}, attributes({{"perm", std::vector<int64_t>{0, 2, 1}}}));
  y = g.node(kTranspose, {y}, attributes({{"perm", std::vector<int64_t>{0, 2, 1}}}));
  y = g.node(kRelu, {y});
  g.fold({y});
  EXPECT_THAT(ops(g.graph), ElementsAre(kRelu));
  EXPECT_EQ(g.graph.node(g.graph.order()[0]).inputs[0], x);
}

TEST(FoldConstants, MergesTransposes) {
  Folding g;
  const ValueId x = g.input("x", {dim("n"), dim(2), dim(3)});
  ValueId y = g.node(kTranspose, {x}, attributes({{"perm", std::vector<int64_t>{1, 2, 0}}}));
  y = g.node(kTranspose, {y}, attributes({{"perm", std::vector<int64_t>{0, 2, 1}}}));
  g.fold({g.node(kRelu, {y})});
  EXPECT_THAT(ops(g.graph), ElementsAre(kTranspose, kRelu));
  EXPECT_THAT(g.graph.node(g.graph.order()[0]).attrs.integers("perm"), ElementsAre(1, 0, 2));
}

TEST(FoldConstants, ReshapeToTheBatchBecomesAConstant) {
  Folding g;
  const ValueId x = g.input("x", {dim("batch"), dim(197), dim(576)});
  const ValueId target = g.concat({g.size_of_axis(x, 0), g.size_of_axis(x, 1), g.integers({3}),
                                   g.integers({3}), g.integers({64})});
  const ValueId y = g.node(kReshape, {x, target});
  g.fold({y});
  EXPECT_THAT(ops(g.graph), ElementsAre(kReshape));
  EXPECT_THAT(target_of(g.graph, y), ElementsAre(-1, 197, 3, 3, 64));
}

TEST(FoldConstants, OpenSizesAreSolvedOrCopied) {
  Folding g;
  const ValueId x = g.input("x", {dim("batch"), dim(192), dim(14), dim(14)});
  const ValueId solved = g.node(
      kReshape, {x, g.concat({g.size_of_axis(x, 0), g.size_of_axis(x, 1), g.integers({-1})})});
  const ValueId tokens = g.input("tokens", {dim("batch"), dim("length"), dim(64)});
  const ValueId copied =
      g.node(kReshape,
             {tokens, g.concat({g.size_of_axis(tokens, 0), g.size_of_axis(tokens, 1),
                                g.integers({8}), g.integers({8})})},
             attributes({{"allowzero", int64_t{1}}}));
  const ValueId heads =
      g.node(kTranspose, {copied}, attributes({{"perm", std::vector<int64_t>{0, 2, 1, 3}}}));
  const ValueId merged = g.node(
      kReshape, {heads, g.concat({g.size_of_axis(tokens, 0), g.integers({2}), g.integers({4}),
                                  g.size_of_axis(tokens, 1), g.integers({8})})});
  g.fold({solved, copied, merged});
  EXPECT_THAT(target_of(g.graph, solved), ElementsAre(-1, 192, 196));
  EXPECT_THAT(target_of(g.graph, copied), ElementsAre(0, -1, 8, 8));
  EXPECT_THAT(target_of(g.graph, merged), ElementsAre(0, 2, 4, -1, 8));
  EXPECT_FALSE(g.graph.node(g.graph.value(copied).producer).attrs.has("allowzero"));
}

TEST(FoldConstants, TwoUnmatchedSizesStayComputed) {
  Folding g;
  const ValueId x = g.input("x", {dim("a"), dim("b"), dim(6)});
  const ValueId target = g.concat({g.size_of_axis(x, 1), g.size_of_axis(x, 0), g.integers({6})});
  const ValueId y = g.node(kReshape, {x, target});
  g.fold({y});
  EXPECT_FALSE(g.graph.is_constant(g.graph.node(g.graph.value(y).producer).inputs[1]));
}

TEST(FoldConstants, ExpandOfASharedDimensionIsAConstant) {
  Folding g;
  const ValueId x = g.input("x", {dim("batch"), dim(4), dim(1), dim("length")});
  const ValueId target =
      g.concat({g.size_of_axis(x, 0), g.integers({4}), g.integers({2}), g.size_of_axis(x, 3)});
  const ValueId y = g.node(kExpand, {x, target});
  g.fold({y});
  EXPECT_THAT(target_of(g.graph, y), ElementsAre(1, 1, 2, 1));
}

// The two ways exporters broadcast a class token over the batch end in one form.
TEST(FoldConstants, ExpandToTheBatchHasOneForm) {
  const auto build = [](bool legacy) {
    Folding g;
    const ValueId x = g.input("x", {dim("batch"), dim(4), dim(8)});
    const ValueId ones = g.integers({legacy ? -1 : 1});
    ValueId shape = g.concat(
        {legacy ? g.size_of_axis(x, 0) : g.node(kShape, {x}, attributes({{"end", int64_t{1}}})),
         ones, ones});
    if (legacy) {   // torch's expand(batch, -1, -1): -1 becomes 1
      shape = g.node(kReshape, {shape, g.integers({-1})});
      const ValueId filled =
          g.node(kConstantOfShape, {g.node(kShape, {shape})},
                 attributes({{"value", Tensor::of<int64_t>({1}, std::vector<int64_t>{1})}}));
      const ValueId is_open = g.node(kEqual, {shape, g.node(kMul, {filled, g.integer(-1)})});
      shape = g.node(kWhere, {is_open, filled, shape});
    }
    const ValueId token = g.node(
        kExpand, {g.floats("token", {1, 1, 8}, std::vector<float>(8, 1)), shape}, {}, "expand");
    const ValueId y = g.node(kConcat, {token, x}, attributes({{"axis", int64_t{1}}}), "cat");
    g.fold({y});
    return g.graph;
  };
  const Graph a = build(false), b = build(true);
  EXPECT_THAT(ops(a), ElementsAre(kShape, kConcat, kExpand, kConcat));
  EXPECT_EQ(ops(a), ops(b));
  for (const Graph* graph : {&a, &b}) {
    const Attrs& attrs = graph->node(graph->order()[0]).attrs;
    EXPECT_EQ(attrs.integer("start", -9), 0);
    EXPECT_EQ(attrs.integer("end", -9), 1);
  }
}

TEST(FoldConstants, KnownDimensionsFeedFloatArithmetic) {
  Folding g;
  const ValueId x = g.input("x", {dim("batch"), dim(64)});
  const ValueId width = g.node(kCast, {g.size_of_axis(x, 1)}, attributes({{"to", int64_t{1}}}));
  const ValueId y = g.node(kMul, {x, g.node(kReciprocal, {g.node(kSqrt, {width})})});
  g.fold({y});
  ASSERT_THAT(ops(g.graph), ElementsAre(kMul));
  EXPECT_THAT(g.graph.value(g.graph.node(g.graph.order()[0]).inputs[1]).constant->as<float>(),
              ElementsAre(0.125F));
}

}   // namespace
}   // namespace repquant
