#include "repquant/interpret/interpreter.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace repquant {
namespace {

using testing::ElementsAre;

struct Built {
  Graph graph;
  ValueId input(const std::string& name) {
    const ValueId id = graph.add_value({.name = name});
    graph.inputs.push_back(id);
    return id;
  }
  ValueId constant(const std::string& name, const at::Tensor& tensor) {
    return graph.add_constant(name, from_aten(tensor));
  }
  ValueId node(OpKind op, std::vector<ValueId> inputs, Attrs attrs = {}) {
    const std::string name = "n" + std::to_string(graph.order().size());
    const ValueId out = graph.add_value({.name = name + ".out"});
    graph.add_node({op, name, std::move(inputs), {out}, std::move(attrs)});
    return out;
  }
};

at::Tensor run_one(OpKind op, std::vector<at::Tensor> inputs, Attrs attrs = {}) {
  Node node{op, "node", std::vector<ValueId>(inputs.size(), 0), {0}, std::move(attrs)};
  return op_function(op)(node, inputs)[0];
}

Attrs with(const std::string& name, AttrValue value) {
  Attrs attrs;
  attrs.set(name, std::move(value));
  return attrs;
}

TEST(OpTable, HasEveryOp) {
#define REPQUANT_OP(name, text, onnx) EXPECT_NE(op_function(OpKind::k##name), nullptr) << text;
#include "repquant/graph/ops.def"
#undef REPQUANT_OP
}

TEST(Convert, EveryTypeReturnsAsItWas) {
  for (const DType type :
       {DType::kF32, DType::kF64, DType::kF16, DType::kBF16, DType::kI8, DType::kU8, DType::kI16,
        DType::kU16, DType::kI32, DType::kU32, DType::kI64, DType::kU64, DType::kBool}) {
    Tensor tensor(type, {2, 3});
    auto* bytes = static_cast<uint8_t*>(tensor.data());
    for (size_t i = 0; i < tensor.bytes(); ++i) bytes[i] = type == DType::kBool ? i % 2 : 3 * i + 1;
    const Tensor back = from_aten(to_aten(tensor));
    EXPECT_EQ(back.dtype(), type);
    EXPECT_EQ(back.shape(), tensor.shape());
    EXPECT_EQ(std::memcmp(back.data(), tensor.data(), tensor.bytes()), 0) << name_of(type);
  }
}

TEST(Convert, ReadsStridedTensorsInRowMajorOrder) {
  const Tensor tensor = from_aten(torch::tensor({1.0F, 2.0F, 3.0F, 4.0F}).reshape({2, 2}).t());
  EXPECT_THAT(tensor.as<float>(), ElementsAre(1, 3, 2, 4));
}

// The composite against its definition, head by head, in double. Float rounding of a dot product of
// length n with terms below 1 is at most n eps; n <= 8 for scores, softmax keeps relative errors
// within twice that, so 1e-5 is ample.
TEST(MultiHeadAttention, FollowsItsDefinition) {
  torch::manual_seed(1);
  const int64_t batch = 2, t = 5, s = 5, heads = 4, kv_heads = 2, d = 3, dv = 2;
  const at::Tensor q = at::rand({batch, t, heads * d}), k = at::rand({batch, s, kv_heads * d});
  const at::Tensor v = at::rand({batch, s, kv_heads * dv}), bias = at::rand({heads, t, s});
  Attrs attrs = with("heads", heads);
  attrs.set("kv_heads", kv_heads);
  attrs.set("scale", 0.7F);
  attrs.set("causal", int64_t{1});
  const at::Tensor y = run_one(OpKind::kMultiHeadAttention, {q, k, v, bias}, attrs);
  ASSERT_EQ(y.sizes(), at::IntArrayRef({batch, t, heads * dv}));
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t g = h / (heads / kv_heads);
    const at::Tensor qh = q.slice(-1, h * d, (h + 1) * d).to(at::kDouble);
    const at::Tensor kh = k.slice(-1, g * d, (g + 1) * d).to(at::kDouble);
    const at::Tensor vh = v.slice(-1, g * dv, (g + 1) * dv).to(at::kDouble);
    at::Tensor e =
        at::exp(qh.matmul(kh.transpose(1, 2)) * double{0.7F} + bias[h].to(at::kDouble)).tril();
    const at::Tensor expected = (e / e.sum(-1, true)).matmul(vh);
    EXPECT_LT((y.slice(-1, h * dv, (h + 1) * dv) - expected).abs().max().item<double>(), 1e-5) << h;
  }
}

TEST(MultiHeadAttention, HookSeesOperandsAndProbabilities) {
  Built b;
  const ValueId q = b.input("q"), k = b.input("k"), v = b.input("v");
  b.graph.outputs = {b.node(OpKind::kMultiHeadAttention, {q, k, v}, with("heads", int64_t{2}))};
  const WeightMap weights;
  std::vector<int> seen;
  const at::Tensor value = at::rand({1, 3, 8});
  const auto out =
      Interpreter(b.graph, weights)
          .run(std::vector<at::Tensor>{at::rand({1, 3, 4}), at::rand({1, 3, 4}), value},
               [&](const Site& site, const at::Tensor& x) {
                 seen.push_back(site.input);
                 if (site.input != kProbabilities) return x;
                 EXPECT_EQ(x.sizes(), at::IntArrayRef({1, 2, 3, 3}));
                 EXPECT_TRUE(at::allclose(x.sum(-1), at::ones({1, 2, 3})));
                 return at::eye(3).expand({1, 2, 3, 3}).contiguous();
               });
  EXPECT_THAT(seen, ElementsAre(0, 1, 2, kProbabilities));
  EXPECT_TRUE(at::equal(out[0], value));   // the identity lets every token see itself alone
}

TEST(Interpreter, HookReplacesActivationsAndWeights) {
  Built b;
  const ValueId x = b.input("x");
  const ValueId w = b.constant("w", torch::tensor({{1.0F, 2.0F}}));
  b.graph.outputs = {b.node(OpKind::kLinear, {x, w, kNoValue})};
  const WeightMap weights = load_weights(b.graph);
  const Interpreter interpreter(b.graph, weights);
  const std::vector<at::Tensor> in = {torch::tensor({{3.0F, 5.0F}})};
  EXPECT_EQ(interpreter.run(in)[0].item<float>(), 13.0F);
  const auto doubled = interpreter.run(in, [](const Site& site, const at::Tensor& t) {
    return site.input == 1 ? t * 2 : t + 1;
  });
  EXPECT_EQ(doubled[0].item<float>(), 2 * (4.0F + 12.0F));
}

TEST(Interpreter, FreesValuesAfterTheirLastUse) {
  Built b;
  const ValueId x = b.input("x");
  const ValueId a = b.node(OpKind::kRelu, {x}), c = b.node(OpKind::kNeg, {a});
  const ValueId d = b.node(OpKind::kAdd, {c, x});
  b.graph.outputs = {d};
  const WeightMap weights;
  const Interpreter interpreter(b.graph, weights);
  ValueMap values = {{x, at::ones({2})}};
  interpreter.run_nodes(b.graph.order(), values, std::vector<ValueId>{c, d});
  EXPECT_FALSE(values.contains(x));
  EXPECT_FALSE(values.contains(a));
  EXPECT_TRUE(values.contains(c));
  EXPECT_TRUE(at::equal(values.at(d), at::zeros({2})));
}

TEST(Interpreter, GradientsReachWeights) {
  Built b;
  const ValueId x = b.input("x");
  const ValueId w = b.constant("w", at::ones({2, 3}));
  const ValueId y = b.node(OpKind::kLinear, {x, w});
  b.graph.outputs = {b.node(OpKind::kReduceSum, {y})};
  WeightMap weights = load_weights(b.graph);
  weights.at(w).requires_grad_();
  const at::Tensor in = torch::tensor({{1.0F, 2.0F, 3.0F}, {10.0F, 20.0F, 30.0F}});
  Interpreter(b.graph, weights).run(std::vector<at::Tensor>{in})[0].sum().backward();
  EXPECT_TRUE(at::equal(weights.at(w).grad(), in.sum(0).expand({2, 3})));
}

TEST(Interpreter, NamesTheNodeThatCannotRun) {
  Built b;
  const ValueId x = b.input("x"), y = b.input("y");
  b.graph.outputs = {b.node(OpKind::kMatMul, {x, y})};
  const WeightMap weights;
  const Interpreter interpreter(b.graph, weights);
  try {
    interpreter.run(std::vector<at::Tensor>{at::ones({2, 3}), at::ones({2, 3})});
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
    EXPECT_THAT(error.what(), testing::HasSubstr("\"n0\" (matmul)"));
  }
  EXPECT_THROW(interpreter.run(std::vector<at::Tensor>{at::ones({2})}), Error);
}

TEST(Ops, LayerNormOverThreeAxesNormalisesEachSample) {
  torch::manual_seed(2);
  const at::Tensor x = at::rand({2, 3, 4, 5}) * 7 + 3;
  const at::Tensor y = run_one(OpKind::kLayerNorm, {x, at::ones({3, 4, 5}), at::zeros({3, 4, 5})},
                               with("axis", int64_t{1}));
  // A mean of 60 rounded values is within 60 eps of zero; epsilon 1e-5 against a variance above 1.
  EXPECT_LT(y.mean({1, 2, 3}).abs().max().item<float>(), 1e-5);
  EXPECT_LT((y.square().mean({1, 2, 3}) - 1).abs().max().item<float>(), 2e-5);
}

TEST(Ops, RmsNormAddsTheOptionalShift) {
  const at::Tensor x = torch::tensor({{3.0F, 4.0F}});
  const at::Tensor y =
      run_one(OpKind::kRmsNorm, {x, torch::tensor({2.0F, 1.0F}), torch::tensor({1.0F, -1.0F})},
              with("epsilon", 0.0F));
  const float root = std::sqrt(12.5F);   // three roundings of values below 3
  EXPECT_NEAR(y[0][0].item<float>(), 2 * 3 / root + 1, 1e-6);
  EXPECT_NEAR(y[0][1].item<float>(), 4 / root - 1, 1e-6);
}

TEST(Ops, IntegerDivisionTruncatesAndModFollowsTheDivisor) {
  const at::Tensor a = torch::tensor({-7, 7}, at::kLong), b = torch::tensor({2, -2}, at::kLong);
  EXPECT_THAT(from_aten(run_one(OpKind::kDiv, {a, b})).as<int64_t>(), ElementsAre(-3, -3));
  EXPECT_THAT(from_aten(run_one(OpKind::kMod, {a, b})).as<int64_t>(), ElementsAre(1, -1));
  EXPECT_THAT(from_aten(run_one(OpKind::kMod, {a, b}, with("fmod", int64_t{1}))).as<int64_t>(),
              ElementsAre(-1, 1));
}

TEST(Ops, PadsByReflectionEdgeAndWrap) {
  const at::Tensor x = torch::tensor({1.0F, 2.0F, 3.0F}), pads = torch::tensor({2, 2}, at::kLong);
  EXPECT_THAT(from_aten(run_one(OpKind::kPad, {x, pads}, with("mode", "reflect"))).as<float>(),
              ElementsAre(3, 2, 1, 2, 3, 2, 1));
  EXPECT_THAT(from_aten(run_one(OpKind::kPad, {x, pads}, with("mode", "edge"))).as<float>(),
              ElementsAre(1, 1, 1, 2, 3, 3, 3));
  EXPECT_THAT(from_aten(run_one(OpKind::kPad, {x, pads}, with("mode", "wrap"))).as<float>(),
              ElementsAre(2, 3, 1, 2, 3, 1, 2));
}

TEST(Ops, SlicesBackwards) {
  const at::Tensor x = torch::tensor({0.0F, 1.0F, 2.0F, 3.0F, 4.0F});
  const auto ints = [](int64_t value) { return torch::tensor({value}, at::kLong); };
  const auto slice = [&](int64_t start, int64_t end, int64_t step) {
    return from_aten(run_one(OpKind::kSlice, {x, ints(start), ints(end), ints(0), ints(step)}));
  };
  EXPECT_THAT(slice(-1, std::numeric_limits<int64_t>::min(), -2).as<float>(), ElementsAre(4, 2, 0));
  EXPECT_THAT(slice(3, 0, -1).as<float>(), ElementsAre(3, 2, 1));
  EXPECT_THAT(slice(-2, 100, 1).as<float>(), ElementsAre(3, 4));
  EXPECT_EQ(slice(4, 2, 1).size(), 0);
}

// ceil_mode without a window that starts in the padding; the mean counts real elements alone.
TEST(Ops, PoolsWithCeilMode) {
  const at::Tensor x = torch::tensor({1.0F, 2.0F, 3.0F, 4.0F, 5.0F}).reshape({1, 1, 5});
  Attrs attrs = with("kernel_shape", std::vector<int64_t>{2});
  attrs.set("strides", std::vector<int64_t>{2});
  EXPECT_EQ(run_one(OpKind::kMaxPool, {x}, attrs).numel(), 2);
  attrs.set("ceil_mode", int64_t{1});
  EXPECT_THAT(from_aten(run_one(OpKind::kMaxPool, {x}, attrs)).as<float>(), ElementsAre(2, 4, 5));
  EXPECT_THAT(from_aten(run_one(OpKind::kAveragePool, {x}, attrs)).as<float>(),
              ElementsAre(1.5, 3.5, 5));
}

TEST(Ops, ResizeWithoutAntialiasInterpolatesAndWithItAverages) {
  const at::Tensor x = torch::tensor({0.0F, 8.0F, 0.0F, 8.0F}).reshape({1, 1, 4});
  const at::Tensor sizes = torch::tensor({1, 1, 2}, at::kLong);
  Attrs attrs = with("mode", "linear");
  EXPECT_THAT(from_aten(run_one(OpKind::kResize, {x, {}, {}, sizes}, attrs)).as<float>(),
              ElementsAre(4, 4));
  attrs.set("antialias", int64_t{1});
  // Triangle of half-width 2 at 0.5: weights 3/4 3/4 1/4 and 1/4 on the clamped -1; sum 2 -> 3/8 of
  // 8 + ..
  const at::Tensor y = run_one(OpKind::kResize, {x, {}, {}, sizes}, attrs);
  EXPECT_THAT(from_aten(y).as<float>(), ElementsAre(3, 5));
}

TEST(Ops, ScatterNDReduces) {
  const at::Tensor x = torch::tensor({1.0F, 2.0F, 3.0F}),
                   rows = torch::tensor({{1}, {-1}, {1}}, at::kLong);
  const at::Tensor updates = torch::tensor({10.0F, 20.0F, 30.0F});
  EXPECT_THAT(from_aten(run_one(OpKind::kScatterND, {x, rows, updates}, with("reduction", "add")))
                  .as<float>(),
              ElementsAre(1, 42, 23));
  EXPECT_THAT(from_aten(run_one(OpKind::kScatterND, {x, rows, updates}, with("reduction", "max")))
                  .as<float>(),
              ElementsAre(1, 30, 20));
}

TEST(Ops, TopKPrefersTheLowerIndexAmongEquals) {
  const at::Tensor x = torch::tensor({2.0F, 5.0F, 5.0F, 1.0F, 5.0F}),
                   k = torch::tensor({2}, at::kLong);
  Node node{OpKind::kTopK, "node", {0, 0}, {0, 0}, {}};
  const auto outputs = op_function(OpKind::kTopK)(node, std::vector<at::Tensor>{x, k});
  EXPECT_THAT(from_aten(outputs[1]).as<int64_t>(), ElementsAre(1, 2));
}

TEST(Ops, QuantizeRoundsHalfToEvenAndSaturates) {
  const at::Tensor x = torch::tensor({0.5F, 1.5F, -1.0F, 300.0F});
  const at::Tensor codes = run_one(OpKind::kQuantizeLinear,
                                   {x, torch::tensor(1.0F), torch::tensor(3, at::kByte)});
  EXPECT_THAT(from_aten(codes).as<uint8_t>(), ElementsAre(3, 5, 2, 255));
}

}  // namespace
}  // namespace repquant
