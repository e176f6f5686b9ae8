#include "repquant/graph/recognise/recognise.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using enum OpKind;

std::vector<float> ramp(int64_t n, float start = 0.5F, float step = 0.25F) {
  std::vector<float> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(start + step * static_cast<float>((i * 7) % 11));
  return out;
}

struct Parts : GraphBuilder {
  ValueId number(float v) { return graph.add_constant("number", Tensor::scalar(v)); }
  ValueId vector(Shape shape, float start = 0.5F) {
    const int64_t n = element_count(shape);
    return floats("vector", std::move(shape), ramp(n, start));
  }
  ValueId mean(ValueId x, std::vector<int64_t> axes = {-1}, int64_t keep = 1) {
    return node(kReduceMean, {x, integers(axes)}, attributes({{"keepdims", keep}}));
  }
  ValueId cast(ValueId x) { return node(kCast, {x}, attributes({{"to", int64_t{1}}})); }

  // Recognises, checks that a second time finds nothing more, and returns the ops that are left.
  std::vector<OpKind> recognised(ValueId output) {
    graph.outputs = {output};
    report = recognise(graph);
    graph.verify();
    EXPECT_THAT(graph.outputs, ElementsAre(output));
    std::vector<OpKind> ops;
    for (const NodeId id : graph.order()) ops.push_back(graph.node(id).op);
    const std::string once = print(graph);
    EXPECT_THAT(recognise(graph).found, IsEmpty());
    EXPECT_EQ(print(graph), once);
    return ops;
  }
  const Node& last() const { return graph.node(graph.order().back()); }
  const Tensor& constant(const Node& node, size_t input) const {
    return *graph.value(node.inputs[input]).constant;
  }

  RecogniseReport report;
};

// ---- hard swish ----

TEST(Recognise, HardSwishHoweverItIsWritten) {
  for (const bool divided : {true, false}) {
    Parts g;
    const ValueId x = g.input("x", {dim("batch"), dim(4), dim(3)});
    const ValueId clipped =
        g.node(kClip, {g.node(kAdd, {x, g.number(3)}), g.number(0), g.number(6)});
    const ValueId sixfold = g.node(kMul, {x, clipped});
    const ValueId y = divided ? g.node(kDiv, {sixfold, g.number(6)})
                              : g.node(kMul, {g.number(1.0F / 6), sixfold});
    EXPECT_THAT(g.recognised(y), ElementsAre(kHardSwish)) << divided;
  }
  Parts g;  // another slope is another function
  const ValueId x = g.input("x", {dim("batch"), dim(4), dim(3)});
  const ValueId clipped = g.node(kClip, {g.node(kAdd, {x, g.number(2)}), g.number(0), g.number(6)});
  EXPECT_THAT(g.recognised(g.node(kDiv, {g.node(kMul, {x, clipped}), g.number(6)})),
              ElementsAre(kAdd, kClip, kMul, kDiv));
}

TEST(Recognise, HardSwishKeepsTheClipsAroundIt) {
  const auto hard_swish = [](Parts& g, ValueId x, bool twice) {
    ValueId clipped = g.node(kAdd, {x, g.number(3)});
    if (twice) clipped = g.node(kClip, {clipped, g.number(-1), g.number(7)});
    clipped = g.node(kClip, {clipped, g.number(0), g.number(6)});
    return g.node(kDiv, {g.node(kMul, {x, clipped}), g.number(6)});
  };
  {  // bounds beyond every number that recognition tries
    Parts g;
    const ValueId x = g.input("x", {dim("batch"), dim(4), dim(3)});
    const ValueId held = g.node(kClip, {x, g.number(-20), g.number(20)});
    const ValueId y = g.node(kClip, {hard_swish(g, held, false), g.number(-20), g.number(20)});
    EXPECT_THAT(g.recognised(y), ElementsAre(kClip, kHardSwish, kClip));
  }
  Parts g;  // one function with two clips
  const ValueId x = g.input("x", {dim("batch"), dim(4), dim(3)});
  EXPECT_THAT(g.recognised(hard_swish(g, x, true)), ElementsAre(kHardSwish));
}

// ---- linear -----------------------------------------------------------------------------------------

TEST(RecogniseLinear, MatMulAndBiasInEitherOrder) {
  for (const bool bias_first : {false, true}) {
    Parts g;
    const ValueId x = g.input("x", {dim("batch"), dim(5), dim(3)});
    const ValueId y = g.node(kMatMul, {x, g.floats("w", {3, 2}, {1, 2, 3, 4, 5, 6})});
    const ValueId b = g.floats("b", {2}, {7, 8});
    const ValueId z = g.node(kAdd, bias_first ? std::vector{b, y} : std::vector{y, b});
    EXPECT_THAT(g.recognised(z), ElementsAre(kLinear));
    EXPECT_THAT(g.constant(g.last(), 1).as<float>(), ElementsAre(1, 3, 5, 2, 4, 6));
    EXPECT_EQ(g.constant(g.last(), 1).shape(), (Shape{2, 3}));
    EXPECT_EQ(g.last().inputs[2], b);
    EXPECT_THAT(g.report.found, ElementsAre(Pair("linear", 1)));
  }
}

TEST(RecogniseLinear, SharedWeightsStayShared) {
  Parts g;
  const ValueId x = g.input("x", {dim("n"), dim(3)});
  const ValueId w = g.vector({3, 3});
  const ValueId y = g.node(kMatMul, {g.node(kRelu, {g.node(kMatMul, {x, w})}), w});
  EXPECT_THAT(g.recognised(y), ElementsAre(kLinear, kRelu, kLinear));
  EXPECT_EQ(g.graph.node(g.graph.order()[0]).inputs[1], g.last().inputs[1]);
}

TEST(RecogniseLinear, GemmFoldsItsFactors) {
  Parts g;
  const ValueId x = g.input("x", {dim("n"), dim(2)});
  const ValueId y = g.node(kGemm, {x, g.floats("w", {1, 2}, {1, 2}), g.floats("b", {1, 1}, {10})},
                           attributes({{"transB", int64_t{1}}, {"alpha", 2.0F}, {"beta", 0.5F}}));
  EXPECT_THAT(g.recognised(y), ElementsAre(kLinear));
  EXPECT_THAT(g.constant(g.last(), 1).as<float>(), ElementsAre(2, 4));
  EXPECT_THAT(g.constant(g.last(), 2).as<float>(), ElementsAre(5));
}

TEST(RecogniseLinear, GemmWithItsOwnWeightLayoutIsUsedAsItIs) {
  Parts g;
  const ValueId x = g.input("x", {dim("n"), dim(2)});
  const ValueId w = g.vector({3, 2}), b = g.vector({3});
  EXPECT_THAT(g.recognised(g.node(kGemm, {x, w, b}, attributes({{"transB", int64_t{1}}}))),
              ElementsAre(kLinear));
  EXPECT_THAT(g.last().inputs, ElementsAre(x, w, b));
}

TEST(RecogniseLinear, LeavesWhatIsNotALayer) {
  Parts g;
  const ValueId x = g.input("x", {dim("n"), dim(5), dim(3)});
  const ValueId product = g.node(kMatMul, {g.vector({5, 5}), x});   // constant first
  const ValueId transposed =
      g.node(kTranspose, {product}, attributes({{"perm", std::vector<int64_t>{0, 2, 1}}}));
  EXPECT_THAT(g.recognised(g.node(kMatMul, {product, transposed})),
              ElementsAre(kMatMul, kTranspose, kMatMul));
}

TEST(RecogniseLinear, PositionsAreNoBias) {
  Parts g;
  const ValueId x = g.input("x", {dim("n"), dim(3), dim(3)});
  const ValueId y = g.node(kMatMul, {x, g.vector({3, 3})});
  EXPECT_THAT(g.recognised(g.node(kAdd, {y, g.vector({1, 3, 1})})), ElementsAre(kLinear, kAdd));
}

TEST(RecogniseLinear, BiasBehindASplitMovesInFront) {
  Parts g;
  const ValueId x = g.input("x", {dim("n"), dim(3)});
  const auto parts = g.nodes(kSplit, {g.node(kMatMul, {x, g.vector({3, 3})}), g.integers({1, 2})},
                             2, attributes({{"axis", int64_t{-1}}}));
  const ValueId a = g.node(kAdd, {parts[0], g.floats("p", {1}, {5})}),
                b = g.node(kAdd, {g.floats("q", {2}, {6, 7}), parts[1]});
  EXPECT_THAT(g.recognised(g.node(kMul, {a, b})), ElementsAre(kLinear, kSplit, kMul));
  EXPECT_THAT(g.constant(g.graph.node(g.graph.order()[0]), 2).as<float>(), ElementsAre(5, 6, 7));
}

// ---- norms ------------------------------------------------------------------------------------------

struct NormForm {
  bool square_by_mul = false, second_sub = false, reciprocal = false, power = false, casts = false;
  bool gamma = true, beta = true;
  std::vector<int64_t> axes = {-1};
  float epsilon = 1e-5F;
  bool epsilon_outside = false;
  std::vector<int64_t> variance_axes = {-1};
};

ValueId layer_norm(Parts& g, ValueId x, const NormForm& f) {
  if (f.casts) x = g.cast(x);
  const ValueId mean = g.mean(x, f.axes), d = g.node(kSub, {x, mean});
  const ValueId d2 = f.second_sub ? g.node(kSub, {x, mean}) : d;
  const ValueId square = f.square_by_mul ? g.node(kMul, {d2, d2}) : g.node(kPow, {d2, g.number(2)});
  const ValueId variance = g.mean(square, f.variance_axes);
  ValueId root = f.epsilon_outside ? g.node(kAdd, {g.node(kSqrt, {variance}), g.number(f.epsilon)})
                                   : g.node(kAdd, {g.number(f.epsilon), variance});
  if (f.power) root = g.node(kPow, {root, g.number(f.reciprocal ? -0.5F : 0.5F)});
  else if (!f.epsilon_outside) root = g.node(kSqrt, {root});
  if (f.reciprocal && !f.power) root = g.node(kReciprocal, {root});
  ValueId y = g.node(f.reciprocal ? kMul : kDiv, {d, root});
  if (f.casts) y = g.cast(y);
  if (f.gamma) y = g.node(kMul, {y, g.vector({6})});
  if (f.beta) y = g.node(kAdd, {g.vector({6}, -1), y});
  return y;
}

TEST(RecogniseLayerNorm, EveryForm) {
  std::vector<NormForm> forms(8);
  forms[1].square_by_mul = true;
  forms[2].second_sub = true;
  forms[3].reciprocal = true;
  forms[4].reciprocal = forms[4].power = true;
  forms[5].casts = true;
  forms[6].axes = {2};
  forms[7].power = true;
  for (size_t i = 0; i < forms.size(); ++i) {
    SCOPED_TRACE(i);
    Parts g;
    const ValueId y = layer_norm(g, g.input("x", {dim("batch"), dim(4), dim(6)}), forms[i]);
    ASSERT_THAT(g.recognised(y), ElementsAre(kLayerNorm))
        << testing::PrintToString(g.report.refused);
    EXPECT_EQ(g.last().attrs.real("epsilon", 0), 1e-5F);
    EXPECT_EQ(g.last().attrs.integer("axis", 0), -1);
    EXPECT_EQ(g.last().inputs.size(), 3U);
  }
}

TEST(RecogniseLayerNorm, MissingAffine) {
  for (const bool gamma : {false, true}) {
    for (const bool beta : {false, true}) {
      Parts g;
      NormForm form;
      form.gamma = gamma;
      form.beta = beta;
      const ValueId y = layer_norm(g, g.input("x", {dim(2), dim(6)}), form);
      ASSERT_THAT(g.recognised(y), ElementsAre(kLayerNorm));
      EXPECT_EQ(g.constant(g.last(), 1).as<float>()[1], gamma ? 2.25F : 1.0F);
      EXPECT_EQ(g.last().inputs.size(), beta ? 3U : 2U);
    }
  }
}

TEST(RecogniseLayerNorm, LeavesLookAlikes) {
  std::vector<NormForm> forms(3);
  forms[0].epsilon_outside = true;
  forms[1].axes = {1};
  forms[2].variance_axes = {1};
  for (size_t i = 0; i < forms.size(); ++i) {
    SCOPED_TRACE(i);
    Parts g;
    const ValueId y = layer_norm(g, g.input("x", {dim("batch"), dim(6), dim(6)}), forms[i]);
    EXPECT_THAT(g.recognised(y), testing::Not(testing::Contains(kLayerNorm)));
  }
}

TEST(RecogniseLayerNorm, TheOpItselfGetsPlainAttributes) {
  Parts g;
  const ValueId x = g.input("x", {dim("n"), dim(4), dim(6)});
  const ValueId y = g.node(kLayerNorm, {x, g.vector({6})},
                           attributes({{"axis", int64_t{2}}, {"stash_type", int64_t{1}}}));
  g.recognised(y);
  EXPECT_EQ(g.last().attrs.integer("axis", 0), -1);
  EXPECT_EQ(g.last().attrs.real("epsilon", 0), 1e-5F);
  EXPECT_FALSE(g.last().attrs.has("stash_type"));
}

ValueId rms_norm(Parts& g, ValueId x, bool divide, float power, ValueId other = kNoValue) {
  const ValueId mean = g.mean(g.node(kPow, {x, g.number(power)}));
  const ValueId root = g.node(kSqrt, {g.node(kAdd, {mean, g.number(1e-6F)})});
  const ValueId numerator = other == kNoValue ? x : other;
  return divide ? g.node(kDiv, {numerator, root})
                : g.node(kMul, {numerator, g.node(kReciprocal, {root})});
}

TEST(RecogniseRmsNorm, EveryForm) {
  for (const bool divide : {false, true}) {
    for (const bool casts : {false, true}) {
      Parts g;
      const ValueId x = g.input("x", {dim("batch"), dim("length"), dim(6)});
      ValueId y = rms_norm(g, casts ? g.cast(x) : x, divide, 2);
      if (casts) y = g.cast(y);
      // Gemma's gain: 1 + w
      y = g.node(kMul, {y, g.node(kAdd, {g.number(1), g.vector({6})})});
      ASSERT_THAT(g.recognised(y), ElementsAre(kRmsNorm));
      EXPECT_EQ(g.constant(g.last(), 1).as<float>()[0], 1.5F);
      EXPECT_EQ(g.last().attrs.real("epsilon", 0), 1e-6F);
    }
  }
}

TEST(RecogniseRmsNorm, LeavesLookAlikes) {
  Parts cube;
  EXPECT_THAT(cube.recognised(rms_norm(cube, cube.input("x", {dim(2), dim(6)}), true, 3)),
              testing::Not(testing::Contains(kRmsNorm)));
  Parts other;
  const ValueId x = other.input("x", {dim(2), dim(6)}), z = other.input("z", {dim(2), dim(6)});
  EXPECT_THAT(other.recognised(rms_norm(other, x, true, 2, z)),
              testing::Not(testing::Contains(kRmsNorm)));
}

// ---- activations ------------------------------------------------------------------------------------

constexpr float kRoot2 = 1.41421356F;

TEST(RecogniseGelu, ErfInAnyOrder) {
  for (int form = 0; form < 5; ++form) {
    SCOPED_TRACE(form);
    Parts g;
    const ValueId x = g.input("x", {dim("batch"), dim(6)});
    const auto half = [&] { return g.number(0.5F); };
    const ValueId scaled =
        form == 1 ? g.node(kMul, {x, g.number(1 / kRoot2)}) : g.node(kDiv, {x, g.number(kRoot2)});
    const ValueId plus =
        g.node(kAdd, {g.number(1), g.node(kErf, {form == 4 ? g.cast(scaled) : scaled})});
    ValueId y = kNoValue;
    if (form == 0) y = g.node(kMul, {g.node(kMul, {x, plus}), half()});
    if (form == 1) y = g.node(kMul, {g.node(kMul, {x, half()}), plus});
    if (form == 2) y = g.node(kMul, {x, g.node(kMul, {half(), plus})});
    if (form == 3) y = g.node(kDiv, {g.node(kMul, {plus, x}), g.number(2)});
    if (form == 4) y = g.node(kMul, {half(), g.node(kMul, {x, plus})});
    ASSERT_THAT(g.recognised(y), ElementsAre(kGelu));
    EXPECT_EQ(g.last().attrs.text("approximate", ""), "none");
    EXPECT_EQ(g.last().inputs[0], x);
  }
}

ValueId tanh_gelu(Parts& g, ValueId x, bool cube_by_mul, float cubic) {
  const ValueId cube =
      cube_by_mul ? g.node(kMul, {g.node(kMul, {x, x}), x}) : g.node(kPow, {x, g.number(3)});
  const ValueId inner = g.node(kAdd, {x, g.node(kMul, {g.number(cubic), cube})});
  const ValueId t = g.node(kTanh, {g.node(kMul, {inner, g.number(0.7978845608F)})});
  return g.node(kMul, {g.node(kMul, {x, g.number(0.5F)}), g.node(kAdd, {t, g.number(1)})});
}

TEST(RecogniseGelu, TanhForm) {
  for (const bool by_mul : {false, true}) {
    Parts g;
    ASSERT_THAT(g.recognised(tanh_gelu(g, g.input("x", {dim("batch"), dim(6)}), by_mul, 0.044715F)),
                ElementsAre(kGelu));
    EXPECT_EQ(g.last().attrs.text("approximate", ""), "tanh");
  }
}

TEST(RecogniseGelu, LeavesWrongConstantsAndSaysSo) {
  Parts g;
  const ValueId x = g.input("x", {dim("batch"), dim(6)});
  const ValueId plus =
      g.node(kAdd, {g.number(1), g.node(kErf, {g.node(kDiv, {x, g.number(kRoot2)})})});
  EXPECT_THAT(g.recognised(g.node(kMul, {g.node(kMul, {x, plus}), g.number(0.51F)})),
              testing::Not(testing::Contains(kGelu)));
  EXPECT_THAT(g.report.refused, ElementsAre(HasSubstr("gelu at \"n")));
  Parts t;
  EXPECT_THAT(t.recognised(tanh_gelu(t, t.input("x", {dim("batch"), dim(6)}), true, 0.045F)),
              testing::Not(testing::Contains(kGelu)));
}

TEST(RecogniseGelu, TwoInputsAreNoGelu) {
  Parts g;
  const ValueId x = g.input("x", {dim("batch"), dim(6)}), z = g.input("z", {dim("batch"), dim(6)});
  const ValueId plus =
      g.node(kAdd, {g.number(1), g.node(kErf, {g.node(kDiv, {x, g.number(kRoot2)})})});
  EXPECT_THAT(g.recognised(g.node(kMul, {g.node(kMul, {z, plus}), g.number(0.5F)})),
              testing::Not(testing::Contains(kGelu)));
}

TEST(RecogniseSilu, WithAndWithoutAFactorOfOne) {
  for (const bool factor : {false, true}) {
    Parts g;
    const ValueId x = g.node(kNeg, {g.input("x", {dim("batch"), dim(6)})});
    const ValueId s = g.node(kSigmoid, {factor ? g.node(kMul, {x, g.number(1)}) : x});
    EXPECT_THAT(g.recognised(g.node(kMul, {factor ? s : x, factor ? x : s})),
                ElementsAre(kNeg, kSilu));
  }
}

TEST(RecogniseSilu, QuickGeluStays) {
  Parts g;
  const ValueId x = g.input("x", {dim("batch"), dim(6)});
  const ValueId y = g.node(kMul, {x, g.node(kSigmoid, {g.node(kMul, {x, g.number(1.702F)})})});
  EXPECT_THAT(g.recognised(y), ElementsAre(kMul, kSigmoid, kMul));
}

}   // namespace
}   // namespace repquant
