#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/graph/recognise/recognise.h"
#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;
using enum OpKind;

constexpr int64_t kTokens = 5, kHeads = 3, kWidth = 4, kChannels = kHeads * kWidth;

struct Attention : GraphBuilder {
  ValueId number(float v) { return graph.add_constant("number", Tensor::scalar(v)); }
  ValueId matrix(int64_t rows, int64_t columns) {
    std::vector<float> values;
    for (int64_t i = 0; i < rows * columns; ++i)
      values.push_back(static_cast<float>((i * 5) % 13 - 6) / 8);
    return floats("matrix", {rows, columns}, values);
  }
  ValueId linear(ValueId x, int64_t in, int64_t out) { return node(kMatMul, {x, matrix(in, out)}); }
  ValueId reshape(ValueId x, const std::vector<int64_t>& shape) {
    return node(kReshape, {x, integers(shape)});
  }
  ValueId transpose(ValueId x, std::vector<int64_t> perm) {
    return node(kTranspose, {x}, attributes({{"perm", std::move(perm)}}));
  }
  ValueId heads(ValueId x, int64_t count = kHeads) {
    return transpose(reshape(x, {-1, kTokens, count, kWidth}), {0, 2, 1, 3});
  }
  ValueId softmax(ValueId x, int64_t axis = -1) {
    return node(kSoftmax, {x}, attributes({{"axis", axis}}));
  }
  ValueId merge(ValueId x) { return reshape(transpose(x, {0, 2, 1, 3}), {-1, kTokens, kChannels}); }
  ValueId scaled(ValueId x, float factor) { return node(kMul, {x, number(factor)}); }

  std::vector<OpKind> recognised(ValueId output) {
    graph.outputs = {output};
    report = recognise(graph);
    graph.verify();
    std::vector<OpKind> ops;
    for (const NodeId id : graph.order()) ops.push_back(graph.node(id).op);
    const std::string once = print(graph);
    EXPECT_THAT(recognise(graph).found, IsEmpty());
    EXPECT_EQ(print(graph), once);
    return ops;
  }
  const Node& find(OpKind op) const {
    for (const NodeId id : graph.order()) {
      if (graph.node(id).op == op) return graph.node(id);
    }
    throw std::runtime_error("no such node");
  }
  void expect_attributes(float scale, int64_t heads = kHeads, int64_t kv_heads = kHeads,
                         int64_t causal = 0) const {
    const Attrs& attrs = find(kMultiHeadAttention).attrs;
    EXPECT_FLOAT_EQ(attrs.real("scale", 0), scale);
    EXPECT_EQ(attrs.integer("heads", 0), heads);
    EXPECT_EQ(attrs.integer("kv_heads", 0), kv_heads);
    EXPECT_EQ(attrs.integer("causal", -1), causal);
  }

  const ValueId x = input("x", {dim("batch"), dim(kTokens), dim(kChannels)});
  RecogniseReport report;
};

enum class Unpack { kSlice, kSplit, kGather, kSplitBefore };

// q, k, v [B, H, T, d] from one projection.
std::vector<ValueId> fused(Attention& g, Unpack how) {
  const ValueId qkv = g.linear(g.x, kChannels, 3 * kChannels);
  std::vector<ValueId> out;
  if (how == Unpack::kSplitBefore) {
    for (const ValueId part : g.nodes(kSplit, {qkv, g.integers({kChannels, kChannels, kChannels})},
                                      3, attributes({{"axis", int64_t{2}}}))) {
      out.push_back(g.heads(part));
    }
    return out;
  }
  const ValueId all =
      g.transpose(g.reshape(qkv, {-1, kTokens, 3, kHeads, kWidth}), {2, 0, 3, 1, 4});
  if (how == Unpack::kSplit) {
    for (const ValueId part :
         g.nodes(kSplit, {all, g.integers({1, 1, 1})}, 3, attributes({{"axis", int64_t{0}}}))) {
      out.push_back(g.node(kSqueeze, {part, g.integers({0})}));
    }
    return out;
  }
  for (int64_t i = 0; i < 3; ++i) {
    if (how == Unpack::kGather) {
      out.push_back(g.node(kGather, {all, g.integer(i)}, attributes({{"axis", int64_t{0}}})));
    } else {
      out.push_back(g.node(
          kSqueeze, {g.node(kSlice, {all, g.integers({i}), g.integers({i + 1}), g.integers({0})}),
                     g.integers({0})}));
    }
  }
  return out;
}

TEST(RecogniseAttention, FusedProjectionInEveryForm) {
  for (const Unpack how : {Unpack::kSlice, Unpack::kSplit, Unpack::kGather, Unpack::kSplitBefore}) {
    SCOPED_TRACE(static_cast<int>(how));
    Attention g;
    const auto parts = fused(g, how);
    const ValueId scores =
        g.node(kMatMul, {g.scaled(parts[0], 0.5F), g.transpose(parts[1], {0, 1, 3, 2})});
    const ValueId y = g.merge(g.node(kMatMul, {g.softmax(scores), parts[2]}));
    ASSERT_THAT(g.recognised(y), ElementsAre(kLinear, kSplit, kMultiHeadAttention))
        << testing::PrintToString(g.report.refused);
    g.expect_attributes(0.5F);
    const Node& split = g.find(kSplit);
    EXPECT_EQ(split.attrs.integer("axis", 0), -1);
    EXPECT_EQ(split.outputs, g.find(kMultiHeadAttention).inputs);
    EXPECT_THAT(g.graph.value(split.inputs[1]).constant->as<int64_t>(),
                ElementsAre(kChannels, kChannels, kChannels));
    EXPECT_EQ(graph_testing::shape_text(g.graph, y), "[batch, 5, 12]");
  }
}

TEST(RecogniseAttention, SeparateProjections) {
  Attention g;
  const ValueId q = g.linear(g.x, kChannels, kChannels), k = g.linear(g.x, kChannels, kChannels);
  const ValueId v = g.linear(g.x, kChannels, kChannels);
  const ValueId keys = g.transpose(g.reshape(k, {-1, kTokens, kHeads, kWidth}),
                                   {0, 2, 3, 1});   // one transpose for both
  const ValueId scores = g.node(kDiv, {g.node(kMatMul, {g.heads(q), keys}), g.number(2)});
  const ValueId y = g.merge(g.node(kMatMul, {g.softmax(scores, 3), g.heads(v)}));
  ASSERT_THAT(g.recognised(y), ElementsAre(kLinear, kLinear, kLinear, kMultiHeadAttention));
  g.expect_attributes(0.5F);
}

TEST(RecogniseAttention, ScalesMultiply) {
  Attention g;
  const auto parts = fused(g, Unpack::kSlice);
  const float root = std::sqrt(0.5F);
  const ValueId scores = g.node(
      kMatMul, {g.scaled(parts[0], root), g.scaled(g.transpose(parts[1], {0, 1, 3, 2}), root)});
  const ValueId y = g.merge(g.node(kMatMul, {g.softmax(g.scaled(scores, 0.25F)), parts[2]}));
  ASSERT_THAT(g.recognised(y), ElementsAre(kLinear, kSplit, kMultiHeadAttention));
  g.expect_attributes(0.125F);
}

TEST(RecogniseAttention, WithoutHeads) {
  Attention g;
  const ValueId q = g.linear(g.x, kChannels, 4), k = g.linear(g.x, kChannels, 4),
                v = g.linear(g.x, kChannels, 6);
  const ValueId scores =
      g.node(kDiv, {g.node(kMatMul, {q, g.transpose(k, {0, 2, 1})}), g.number(2)});
  ASSERT_THAT(g.recognised(g.node(kMatMul, {g.softmax(scores), v})),
              ElementsAre(kLinear, kLinear, kLinear, kMultiHeadAttention));
  g.expect_attributes(0.5F, 1, 1);
}

TEST(RecogniseAttention, KeysSharedByHeads) {
  Attention g;
  const ValueId q = g.linear(g.x, kChannels, kChannels), k = g.linear(g.x, kChannels, kWidth),
                v = g.linear(g.x, kChannels, kWidth);
  const auto repeated = [&](ValueId one) {
    const ValueId expanded = g.node(
        kExpand,
        {g.node(kUnsqueeze, {g.heads(one, 1), g.integers({2})}), g.integers({1, 1, kHeads, 1, 1})});
    return g.reshape(expanded, {-1, kHeads, kTokens, kWidth});
  };
  const ValueId scores = g.node(kMatMul, {g.heads(q), g.transpose(repeated(k), {0, 1, 3, 2})});
  ASSERT_THAT(
      g.recognised(g.merge(g.node(kMatMul, {g.softmax(g.scaled(scores, 0.5F)), repeated(v)}))),
      ElementsAre(kLinear, kLinear, kLinear, kMultiHeadAttention));
  g.expect_attributes(0.5F, kHeads, 1);
}

TEST(RecogniseAttention, QueriesThatAreNotAProjectionAreMerged) {
  Attention g;
  const ValueId q = g.node(kTanh, {g.heads(g.linear(g.x, kChannels, kChannels))});
  const ValueId k = g.heads(g.linear(g.x, kChannels, kChannels)),
                v = g.heads(g.linear(g.x, kChannels, kChannels));
  const ValueId scores = g.node(kMatMul, {q, g.transpose(k, {0, 1, 3, 2})});
  ASSERT_THAT(g.recognised(g.merge(g.node(kMatMul, {g.softmax(scores), v}))),
              ElementsAre(kLinear, kReshape, kTranspose, kTanh, kLinear, kLinear, kTranspose,
                          kReshape, kMultiHeadAttention));
  g.expect_attributes(1);
}

// softmax(scores + bias) v
ValueId with_bias(Attention& g, ValueId bias, float after = 1) {
  const auto parts = fused(g, Unpack::kSlice);
  ValueId scores = g.scaled(g.node(kMatMul, {parts[0], g.transpose(parts[1], {0, 1, 3, 2})}), 0.5F);
  scores = g.node(kAdd, {scores, bias});
  if (after != 1) scores = g.scaled(scores, after);
  return g.merge(g.node(kMatMul, {g.softmax(scores), parts[2]}));
}

TEST(RecogniseAttention, ConstantBiasAHead) {
  Attention g;
  std::vector<float> bias(kHeads * kTokens * kTokens);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i % 7) / 4;
  ASSERT_THAT(g.recognised(with_bias(g, g.floats("bias", {kHeads, kTokens, kTokens}, bias))),
              ElementsAre(kLinear, kSplit, kMultiHeadAttention));
  g.expect_attributes(0.5F);
  ASSERT_EQ(g.find(kMultiHeadAttention).inputs.size(), 4U);
  EXPECT_EQ(g.graph.value(g.find(kMultiHeadAttention).inputs[3]).constant->shape(),
            (Shape{kHeads, kTokens, kTokens}));
}

TEST(RecogniseAttention, MaskFromTheInput) {
  Attention g;
  const ValueId mask = g.input("mask", {dim("batch"), dim(1), dim(1), dim(kTokens)});
  const ValueId bias = g.node(kMul, {g.node(kSub, {g.number(1), mask}), g.number(-10000)});
  ASSERT_THAT(g.recognised(with_bias(g, bias)),
              ElementsAre(kSub, kMul, kLinear, kSplit, kMultiHeadAttention));
  EXPECT_EQ(g.find(kMultiHeadAttention).inputs[3], bias);
}

Tensor triangle(float masked) {
  Tensor out(DType::kF32, {1, 1, kTokens, kTokens});
  for (int64_t i = 0; i < kTokens; ++i) {
    for (int64_t j = i + 1; j < kTokens; ++j)
      out.as<float>()[static_cast<size_t>(i * kTokens + j)] = masked;
  }
  return out;
}

TEST(RecogniseAttention, CausalConstant) {
  for (const float masked : {-1e9F, -std::numeric_limits<float>::infinity()}) {
    Attention g;
    ASSERT_THAT(g.recognised(with_bias(g, g.graph.add_constant("mask", triangle(masked)))),
                ElementsAre(kLinear, kSplit, kMultiHeadAttention));
    g.expect_attributes(0.5F, kHeads, kHeads, 1);
    EXPECT_EQ(g.find(kMultiHeadAttention).inputs.size(), 3U);
  }
  Attention weak;   // -1 is a bias, no mask
  weak.recognised(with_bias(weak, weak.graph.add_constant("mask", triangle(-1))));
  weak.expect_attributes(0.5F);
  EXPECT_EQ(weak.find(kMultiHeadAttention).inputs.size(), 4U);
}

TEST(RecogniseAttention, CausalCondition) {
  for (const bool fill_first : {false, true}) {
    Attention g;
    std::vector<int64_t> numbers;
    for (int64_t i = 0; i < kTokens * kTokens; ++i)
      numbers.push_back(i % kTokens > i / kTokens ? 1 : 0);
    const ValueId above = g.node(
        kCast,
        {g.graph.add_constant("above", Tensor::of<int64_t>({1, 1, kTokens, kTokens}, numbers))},
        attributes({{"to", int64_t{9}}}));
    const auto parts = fused(g, Unpack::kSplit);
    const ValueId scores =
        g.scaled(g.node(kMatMul, {parts[0], g.transpose(parts[1], {0, 1, 3, 2})}), 0.5F);
    const ValueId fill = g.number(-std::numeric_limits<float>::infinity());
    const ValueId masked = fill_first ? g.node(kWhere, {above, fill, scores})
                                      : g.node(kWhere, {g.node(kNot, {above}), scores, fill});
    ASSERT_THAT(g.recognised(g.merge(g.node(kMatMul, {g.softmax(masked), parts[2]}))),
                ElementsAre(kLinear, kSplit, kMultiHeadAttention));
    g.expect_attributes(0.5F, kHeads, kHeads, 1);
  }
}

// The length is free and the mask computed from it, as language models are exported.
TEST(RecogniseAttention, CausalByShapes) {
  Attention g;
  const ValueId x = g.input("tokens", {dim("batch"), dim("length"), dim(kChannels)});
  const ValueId length = g.node(
      kSqueeze, {g.node(kShape, {x}, attributes({{"start", int64_t{1}}, {"end", int64_t{2}}}))});
  const ValueId positions = g.node(kRange, {g.integer(0), length, g.integer(1)});
  const ValueId seen =
      g.node(kGreaterOrEqual, {g.node(kUnsqueeze, {positions, g.integers({1})}), positions});
  const ValueId mask = g.node(kWhere, {seen, g.number(0), g.number(-1e9F)});
  const ValueId q = g.linear(x, kChannels, 4), k = g.linear(x, kChannels, 4),
                v = g.linear(x, kChannels, 4);
  const ValueId scores = g.node(kAdd, {g.node(kMatMul, {q, g.transpose(k, {0, 2, 1})}), mask});
  ASSERT_THAT(g.recognised(g.node(kMatMul, {g.softmax(scores), v})),
              ElementsAre(kLinear, kLinear, kLinear, kMultiHeadAttention));
  g.expect_attributes(1, 1, 1, 1);
}

TEST(RecogniseAttention, FactorsAHeadAreAnAttribute) {
  Attention g;
  const auto parts = fused(g, Unpack::kSlice);
  const ValueId product = g.node(kMatMul, {parts[0], g.transpose(parts[1], {0, 1, 3, 2})});
  const ValueId scores = g.node(kMul, {product, g.floats("scale", {kHeads, 1, 1}, {0.5F, 1, 2})});
  ASSERT_THAT(g.recognised(g.merge(g.node(kMatMul, {g.softmax(scores), parts[2]}))),
              ElementsAre(kLinear, kSplit, kMultiHeadAttention));
  EXPECT_THAT(g.find(kMultiHeadAttention).attrs.reals("head_scale"), ElementsAre(0.5F, 1, 2));
  g.expect_attributes(1);
}

// Queries and keys of length 1, as Swin v2 has them: the norms move in front of the split of heads.
TEST(RecogniseAttention, CosineSimilarity) {
  Attention g;
  const auto parts = fused(g, Unpack::kSlice);
  const auto unit = [&](ValueId x) {
    const ValueId size =
        g.node(kReduceL2, {x, g.integers({-1})}, attributes({{"keepdims", int64_t{1}}}));
    const ValueId kept = g.node(kClip, {size, g.number(1e-12F)});
    return g.node(kDiv, {x, g.node(kExpand, {kept, g.integers({1, 1, 1, kWidth})})});
  };
  const ValueId keys = g.transpose(unit(parts[1]), {0, 1, 3, 2});
  const ValueId product = g.node(kMatMul, {unit(parts[0]), keys});
  const ValueId scores = g.node(kMul, {product, g.floats("scale", {kHeads, 1, 1}, {5, 10, 20})});
  ASSERT_THAT(g.recognised(g.merge(g.node(kMatMul, {g.softmax(scores), parts[2]}))),
              ElementsAre(kLinear, kSplit, kReshape, kLpNorm, kReshape, kReshape, kLpNorm, kReshape,
                          kMultiHeadAttention))
      << testing::PrintToString(g.report.refused);
  EXPECT_FLOAT_EQ(g.find(kLpNorm).attrs.real("epsilon", 0), 1e-12F);
  EXPECT_EQ(g.graph.value(g.find(kLpNorm).outputs[0]).shape->back().size, kWidth);
}

TEST(RecogniseAttention, ShiftedWindowMask) {
  Attention g;
  const ValueId x =
      g.input("windows", {dim(6), dim(kTokens), dim(kChannels)});   // 3 windows of 2 images
  const ValueId q = g.heads(g.linear(x, kChannels, kChannels)),
                k = g.heads(g.linear(x, kChannels, kChannels));
  const ValueId v = g.heads(g.linear(x, kChannels, kChannels));
  std::vector<float> mask(3 * kTokens * kTokens);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 4 == 1 ? -100.0F : 0.0F;
  const ValueId scores = g.node(kMatMul, {q, g.transpose(k, {0, 1, 3, 2})});
  const ValueId apart = g.reshape(scores, {2, 3, kHeads, kTokens, kTokens});
  const ValueId masked = g.node(kAdd, {apart, g.floats("mask", {3, 1, kTokens, kTokens}, mask)});
  const ValueId together = g.reshape(masked, {-1, kHeads, kTokens, kTokens});
  ASSERT_THAT(g.recognised(g.merge(g.node(kMatMul, {g.softmax(together), v}))),
              ElementsAre(kLinear, kLinear, kLinear, kMultiHeadAttention));
  EXPECT_EQ(g.graph.value(g.find(kMultiHeadAttention).inputs[3]).constant->shape(),
            (Shape{6, 1, kTokens, kTokens}));
}

TEST(RecogniseAttention, LeavesLookAlikes) {
  for (int form = 0; form < 5; ++form) {
    SCOPED_TRACE(form);
    Attention g;
    const auto parts = fused(g, Unpack::kSlice);
    // the keys are not transposed but read as they lie: shapes fit (5 tokens, 5 wide) only by chance
    const ValueId keys = form == 0 ? g.reshape(parts[1], {-1, kHeads, kWidth, kTokens})
                                   : g.transpose(parts[1], {0, 1, 3, 2});
    const ValueId scores = g.node(kMatMul, {parts[0], keys});
    ValueId p = g.softmax(scores, form == 1 ? -2 : -1);   // over the wrong axis
    if (form == 2) p = g.node(kMul, {p, p});              // not a softmax any more
    const ValueId values = form == 3 ? g.node(kAdd, {parts[2], parts[2]}) : parts[2];
    ValueId y = g.node(kMatMul, {p, values});
    y = form == 4 ? g.reshape(y, {-1, kTokens, kChannels})
                  : g.merge(y);                                    // heads and tokens mixed up
    if (form == 3) EXPECT_THAT(g.recognised(y), Contains(kAdd));   // the sum stays in front
    else EXPECT_THAT(g.recognised(y), Not(Contains(kMultiHeadAttention)));
  }
}

// A bias that is scaled with the scores must not be taken for one that is not.
TEST(RecogniseAttention, ScaledBiasStays) {
  Attention g;
  const std::vector<float> bias(kTokens * kTokens, 0.5F);
  EXPECT_THAT(g.recognised(with_bias(g, g.floats("bias", {kTokens, kTokens}, bias), 2)),
              Not(Contains(kMultiHeadAttention)));
}

}   // namespace
}   // namespace repquant
