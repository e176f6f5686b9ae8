#include "repquant/graph/reference/reference.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/graph/testing.h"

namespace repquant::reference {
namespace {

using graph_testing::attributes;
using testing::ElementsAre;
using testing::ElementsAreArray;
using enum OpKind;

Tensor floats(Shape shape, const std::vector<float>& values) {
  return Tensor::of<float>(std::move(shape), values);
}
Tensor integers(Shape shape, const std::vector<int64_t>& values) {
  return Tensor::of<int64_t>(std::move(shape), values);
}
Tensor integers(const std::vector<int64_t>& values) {
  return integers({static_cast<int64_t>(values.size())}, values);
}

std::optional<std::vector<Tensor>> run(OpKind op, const std::vector<Tensor>& inputs,
                                       Attrs attrs = {}, size_t outputs = 1) {
  const Node node{op, "n", {}, std::vector<ValueId>(outputs, 0), std::move(attrs)};
  std::vector<const Tensor*> pointers;
  for (const Tensor& tensor : inputs) pointers.push_back(&tensor);
  return evaluate_node(node, pointers);
}

std::vector<float> values(const std::optional<std::vector<Tensor>>& outputs, size_t i = 0) {
  if (!outputs) return {-12345};
  const auto span = outputs->at(i).as<float>();
  return {span.begin(), span.end()};
}

std::vector<int64_t> whole(const std::optional<std::vector<Tensor>>& outputs, size_t i = 0) {
  if (!outputs) return {-12345};
  const auto span = outputs->at(i).as<int64_t>();
  return {span.begin(), span.end()};
}

TEST(ElementWise, BroadcastsAndKeepsTypes) {
  EXPECT_THAT(values(run(kAdd, {floats({2, 1}, {1, 2}), floats({3}, {10, 20, 30})})),
              ElementsAre(11, 21, 31, 12, 22, 32));
  EXPECT_THAT(whole(run(kDiv, {integers({-7, 7}), integers({2, -2})})), ElementsAre(-3, -3));
  EXPECT_THAT(whole(run(kMod, {integers({-7, 7}), integers({3, -3})})), ElementsAre(2, -2));
  EXPECT_THAT(
      whole(run(kMod, {integers({-7, 7}), integers({3, -3})}, attributes({{"fmod", int64_t{1}}}))),
      ElementsAre(-1, 1));
  EXPECT_FALSE(run(kDiv, {integers({1}), integers({0})}));
  EXPECT_FALSE(run(kAdd, {floats({2}, {1, 2}), floats({3}, {1, 2, 3})}));
  EXPECT_FALSE(run(kAdd, {floats({1}, {1}), integers({1})}));
  EXPECT_FALSE(run(kTopK, {floats({1}, {1})}));
}

TEST(ElementWise, ComparesAndChooses) {
  const auto less = run(kLess, {integers({1, 2, 3}), integers({2})});
  ASSERT_TRUE(less);
  EXPECT_EQ(less->front().dtype(), DType::kBool);
  EXPECT_THAT(values(run(kWhere, {less->front(), floats({1}, {5}), floats({3}, {7, 8, 9})})),
              ElementsAre(5, 8, 9));
  EXPECT_THAT(
      whole(run(kCast, {floats({3}, {-1.7F, 0.2F, 2.9F})}, attributes({{"to", int64_t{7}}}))),
      ElementsAre(-1, 0, 2));
  EXPECT_THAT(values(run(kClip, {floats({3}, {-2, 0.5F, 9}), floats({}, {-1}), floats({}, {1})})),
              ElementsAre(-1, 0.5F, 1));
}

TEST(ElementWise, ActivationsFollowTheirFormulas) {
  const float x = 0.7F;
  EXPECT_FLOAT_EQ(values(run(kGelu, {floats({1}, {x})}))[0],
                  static_cast<float>(0.5 * x * (1 + std::erf(x / std::sqrt(2.0)))));
  // 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) at x = 0.7
  EXPECT_NEAR(
      values(run(kGelu, {floats({1}, {x})}, attributes({{"approximate", std::string("tanh")}})))[0],
      0.5305704F, 1e-6);
  EXPECT_FLOAT_EQ(values(run(kSilu, {floats({1}, {x})}))[0],
                  static_cast<float>(x / (1 + std::exp(-x))));
}

TEST(Movement, SlicesWithNegativeSteps) {
  const Tensor x = floats({2, 3}, {0, 1, 2, 3, 4, 5});
  EXPECT_THAT(
      values(run(kSlice, {x, integers({-1}), integers({std::numeric_limits<int64_t>::min()}),
                          integers({1}), integers({-2})})),
      ElementsAre(2, 0, 5, 3));
  EXPECT_THAT(values(run(kSlice, {x, integers({1}), integers({99}), integers({-2})})),
              ElementsAre(3, 4, 5));
  EXPECT_EQ(run(kSlice, {x, integers({2}), integers({1}), integers({1})})->front().shape(),
            (Shape{2, 0}));
}

TEST(Movement, RearrangesElements) {
  const Tensor x = floats({2, 3}, {0, 1, 2, 3, 4, 5});
  EXPECT_THAT(values(run(kTranspose, {x})), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(values(run(kGather, {x, integers({2}, {-1, 0})}, attributes({{"axis", int64_t{1}}}))),
              ElementsAre(2, 0, 5, 3));
  EXPECT_THAT(values(run(kConcat, {x, x}, attributes({{"axis", int64_t{1}}}))),
              ElementsAre(0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5));
  EXPECT_THAT(values(run(kTile, {x, integers({1, 2})})),
              ElementsAre(0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5));
  EXPECT_THAT(values(run(kSplit, {x, integers({1, 2})}, attributes({{"axis", int64_t{-1}}}), 2), 1),
              ElementsAre(1, 2, 4, 5));
  EXPECT_EQ(run(kReshape, {x, integers({0, -1, 1})})->front().shape(), (Shape{2, 3, 1}));
  EXPECT_EQ(run(kUnsqueeze, {x, integers({0, -1})})->front().shape(), (Shape{1, 2, 3, 1}));
  EXPECT_EQ(run(kExpand, {floats({2, 1}, {1, 2}), integers({3, 1, 2})})->front().shape(),
            (Shape{3, 2, 2}));
  EXPECT_EQ(run(kFlatten, {floats({2, 1, 3}, {0, 1, 2, 3, 4, 5})})->front().shape(), (Shape{2, 3}));
  EXPECT_FALSE(run(kReshape, {x, integers({4, -1})}));
  EXPECT_FALSE(run(kGather, {x, integers({5})}));
  EXPECT_FALSE(run(kSqueeze, {x, integers({0})}));
}

TEST(Movement, RefusesWhatWouldNotFit) {
  EXPECT_FALSE(run(kExpand, {floats({1}, {1}), integers({int64_t{1} << 40})}));
  EXPECT_FALSE(run(kTile, {floats({2}, {1, 2}), integers({int64_t{1} << 30})}));
  EXPECT_FALSE(run(kConstantOfShape, {integers({int64_t{1} << 20, int64_t{1} << 20})}));
  EXPECT_FALSE(run(kRange, {floats({}, {0}), floats({}, {1}), floats({}, {1e-9F})}));
  EXPECT_FALSE(run(kPow, {integers({10}), integers({30})}));
}

TEST(Movement, MakesTensors) {
  EXPECT_THAT(whole(run(kRange, {integers({}, {2}), integers({}, {9}), integers({}, {3})})),
              ElementsAre(2, 5, 8));
  EXPECT_THAT(whole(run(kShape, {floats({2, 3}, {0, 1, 2, 3, 4, 5})},
                        attributes({{"start", int64_t{-1}}}))),
              ElementsAre(3));
  EXPECT_THAT(
      values(run(kConstantOfShape, {integers({2})}, attributes({{"value", floats({1}, {4})}}))),
      ElementsAre(4, 4));
  EXPECT_THAT(
      values(run(kTrilu, {floats({2, 2}, {1, 2, 3, 4})}, attributes({{"upper", int64_t{0}}}))),
      ElementsAre(1, 0, 3, 4));
  EXPECT_THAT(
      values(run(kScatterND, {floats({3}, {1, 2, 3}), integers({1, 1}, {-1}), floats({1}, {9})})),
      ElementsAre(1, 2, 9));
}

TEST(Reduction, OverAxesAndAll) {
  const Tensor x = floats({2, 2}, {1, 2, 3, 4});
  EXPECT_THAT(values(run(kReduceMean, {x, integers({0})}, attributes({{"keepdims", int64_t{0}}}))),
              ElementsAre(2, 3));
  EXPECT_THAT(values(run(kReduceMax, {x})), ElementsAre(4));
  EXPECT_THAT(values(run(kReduceL2, {x, integers({-1})})), ElementsAre(std::sqrt(5.0F), 5));
  EXPECT_THAT(values(run(kReduceProd, {x}, attributes({{"axes", std::vector<int64_t>{1}}}))),
              ElementsAre(2, 12));
  EXPECT_THAT(values(run(kReduceSum, {x, integers(std::vector<int64_t>{})},
                         attributes({{"noop_with_empty_axes", int64_t{1}}}))),
              ElementsAre(1, 2, 3, 4));
}

TEST(Product, BroadcastsLeadingDimensions) {
  const auto out =
      run(kMatMul, {floats({2, 1, 1, 2}, {1, 2, 3, 4}), floats({2, 2, 1}, {1, 1, 1, -1})});
  ASSERT_TRUE(out);
  EXPECT_EQ(out->front().shape(), (Shape{2, 2, 1, 1}));
  EXPECT_THAT(values(out), ElementsAre(3, -1, 7, -1));
  EXPECT_THAT(values(run(kMatMul, {floats({2}, {1, 2}), floats({2}, {3, 4})})), ElementsAre(11));
  const Attrs gemm = attributes({{"alpha", 2.0F}, {"beta", 3.0F}, {"transB", int64_t{1}}});
  EXPECT_THAT(
      values(run(kGemm, {floats({1, 2}, {1, 2}), floats({1, 2}, {3, 4}), floats({1}, {5})}, gemm)),
      ElementsAre(37));
  EXPECT_FALSE(run(kMatMul, {floats({1, 2}, {1, 2}), floats({1, 2}, {1, 2})}));
}

TEST(Product, SoftmaxOverAnyAxis) {
  const Tensor x = floats({2, 2}, {0, 1, 0, 1});
  EXPECT_THAT(values(run(kSoftmax, {x}, attributes({{"axis", int64_t{0}}}))),
              ElementsAre(0.5F, 0.5F, 0.5F, 0.5F));
  const float e = std::exp(1.0F);
  EXPECT_FLOAT_EQ(values(run(kSoftmax, {x}))[1], e / (1 + e));
}

TEST(Composite, NormsNormalise) {
  // mean 2, variance 1: (1 - 2) / 1 * 2 + 10
  EXPECT_THAT(
      values(run(kLayerNorm, {floats({1, 2}, {1, 3}), floats({2}, {2, 2}), floats({2}, {10, 10})},
                 attributes({{"epsilon", 0.0F}}))),
      ElementsAre(8, 12));
  // mean square 12.5, epsilon 12.5: divided by 5
  EXPECT_THAT(values(run(kRmsNorm, {floats({1, 2}, {3, 4}), floats({2}, {5, 10})},
                         attributes({{"epsilon", 12.5F}}))),
              ElementsAre(3, 8));
}

TEST(Composite, AttentionSharesHeadsAndMasks) {
  // Two query heads over one key head of width 1; scores q * k, causal: the first row sees one key.
  const Tensor q = floats({2, 2}, {1, 2, 1, 2}), k = floats({2, 1}, {0, 1}),
               v = floats({2, 1}, {1, 3});
  const Attrs attrs = attributes(
      {{"heads", int64_t{2}}, {"kv_heads", int64_t{1}}, {"scale", 1.0F}, {"causal", int64_t{1}}});
  const auto out = values(run(kMultiHeadAttention, {q, k, v}, attrs));
  const auto mix = [](double score) {
    return static_cast<float>((1 + 3 * std::exp(score)) / (1 + std::exp(score)));
  };
  ASSERT_EQ(out.size(), 4U);
  EXPECT_FLOAT_EQ(out[0], 1);
  EXPECT_FLOAT_EQ(out[1], 1);
  EXPECT_FLOAT_EQ(out[2], mix(1));
  EXPECT_FLOAT_EQ(out[3], mix(2));
}

TEST(Convolution, PadsStridesAndGroups) {
  const Attrs attrs = attributes({{"pads", std::vector<int64_t>{1, 0}},
                                  {"strides", std::vector<int64_t>{2}},
                                  {"group", int64_t{2}}});
  const auto out = run(kConv,
                       {floats({1, 2, 3}, {1, 2, 3, 4, 5, 6}), floats({2, 1, 2}, {1, 10, 1, 1}),
                        floats({2}, {0, 100})},
                       attrs);
  ASSERT_TRUE(out);
  EXPECT_EQ(out->front().shape(), (Shape{1, 2, 2}));
  EXPECT_THAT(values(out), ElementsAre(10, 32, 104, 111));
}

TEST(Convolution, TransposedScatters) {
  const auto out = run(kConvTranspose, {floats({1, 1, 2}, {1, 2}), floats({1, 1, 3}, {1, 10, 100})},
                       attributes({{"strides", std::vector<int64_t>{2}}}));
  EXPECT_THAT(values(out), ElementsAre(1, 10, 102, 20, 200));
}

TEST(Evaluate, RunsNodesOfAGraph) {
  graph_testing::GraphBuilder g;
  const ValueId x = g.input("x", {graph_testing::dim(2)});
  const ValueId a = g.node(kAdd, {x, g.floats("one", {}, {1})});
  const ValueId b = g.node(kMul, {a, a});
  Bindings bindings;
  EXPECT_FALSE(evaluate(g.graph, g.graph.order(), bindings));   // x is missing
  bindings[x] = floats({2}, {1, 2});
  ASSERT_TRUE(evaluate(g.graph, g.graph.order(), bindings));
  const auto out = bindings.at(b).as<float>();
  EXPECT_THAT(std::vector<float>(out.begin(), out.end()), ElementsAre(4, 9));
}

}   // namespace
}   // namespace repquant::reference
