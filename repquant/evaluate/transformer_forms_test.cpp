// Small transformers in the forms exporters write, from recognition to the runtime: integer
// products where there are sites, equal bits in simulator and on every instruction set, and an
// output that stays near the float graph.
#include <cmath>
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "repquant/core/format/uniform.h"
#include "repquant/graph/recognise/recognise.h"
#include "repquant/graph/reference/reference.h"
#include "repquant/graph/testing.h"
#include "repquant/lower/lower.h"
#include "repquant/runtime/session.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;
using enum OpKind;

// Every 8-bit quantizer over its own smallest and largest value leaves an error of at most a
// quarter of a step squared, 255 steps in the range: at least 40 dB below values that fill a third
// of their range (20 log10(255 sqrt(12) / 6)). The forms below chain fewer than 16 of them, whose
// errors add up to 12 dB.
constexpr double kLeastSnr = 28.0;

struct Form : GraphBuilder {
  std::mt19937 random{17};

  std::vector<float> normal(int64_t count, float deviation) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = std::normal_distribution<float>(0, deviation)(random);
    return values;
  }
  ValueId number(float v) { return graph.add_constant("number", Tensor::scalar(v)); }
  ValueId linear(ValueId x, int64_t k, int64_t n, const std::string& name, bool bias = true) {
    const float deviation = 1.0f / std::sqrt(static_cast<float>(k));
    const ValueId y =
        node(kMatMul, {x, floats(name + ".w", {k, n}, normal(k * n, deviation))}, {}, name);
    return bias ? node(kAdd, {y, floats(name + ".b", {n}, normal(n, 0.2f))}) : y;
  }
  ValueId reshape(ValueId x, const std::vector<int64_t>& shape) {
    return node(kReshape, {x, integers(shape)});
  }
  ValueId transpose(ValueId x, std::vector<int64_t> perm) {
    return node(kTranspose, {x}, attributes({{"perm", std::move(perm)}}));
  }
  ValueId slice(ValueId x, int64_t axis, int64_t begin, int64_t end) {
    return node(kSlice, {x, integers({begin}), integers({end}), integers({axis})});
  }
  ValueId concat(std::vector<ValueId> parts, int64_t axis) {
    return node(kConcat, std::move(parts), attributes({{"axis", axis}}));
  }
  ValueId softmax(ValueId x) { return node(kSoftmax, {x}, attributes({{"axis", int64_t{-1}}})); }
  ValueId norm(ValueId x, int64_t channels) {
    return node(
        kLayerNorm,
        {x, floats("gain", {channels}, std::vector<float>(static_cast<size_t>(channels), 1)),
         floats("shift", {channels}, normal(channels, 0.1f))},
        attributes({{"epsilon", 1e-5f}, {"axis", int64_t{-1}}}));
  }
  // x turned by `by` along an axis of `size`.
  ValueId roll(ValueId x, int64_t axis, int64_t size, int64_t by) {
    return concat({slice(x, axis, by, size), slice(x, axis, 0, by)}, axis);
  }
};

QParams range_of(const Tensor& values) {
  const auto x = values.as<float>();
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const UniformParams u = uniform_from_range(std::min(*low, 0.0f), std::max(*high, 0.0f), 8, true);
  return {QuantSpec{8, Uniform{}, PerTensor{}, Range{}}, {u.scale}, {u.zero}, {}};
}

QParams rows_of(const Tensor& weight) {
  QParams params{QuantSpec{8, Uniform{true}, PerChannel{0}, Range{}}, {}, {}, {}};
  const int64_t n = weight.shape()[0], k = weight.size() / n;
  for (int64_t i = 0; i < n; ++i) {
    double most = 1e-6;
    for (const float v :
         weight.as<float>().subspan(static_cast<size_t>(i * k), static_cast<size_t>(k)))
      most = std::max(most, std::fabs(static_cast<double>(v)));
    params.scale.push_back(symmetric_scale(most, 8, true));
    params.zero_point.push_back(0);
  }
  return params;
}

class Deployed {
 public:
  // Layers whose name begins with "float" get no sites.
  Deployed(Form& form, ValueId output, const std::vector<Tensor>& inputs) : graph_(form.graph) {
    graph_.outputs = {output};
    report = recognise(graph_);
    infer_shapes(graph_);
    reference::Bindings values;
    for (size_t i = 0; i < inputs.size(); ++i) values[graph_.inputs[i]] = inputs[i];
    EXPECT_TRUE(reference::evaluate(graph_, graph_.order(), values));
    QuantPlan sites;
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      const auto set = [&](int input, Role role, QParams params) {
        sites.set({id, input}, {role, std::move(params), "test"});
      };
      if (node.op == kLinear && !node.name.starts_with("float")) {
        set(0, Role::kActivation, range_of(values.at(node.inputs[0])));
        set(1, Role::kWeight, rows_of(*graph_.value(node.inputs[1]).constant));
      }
      if (node.op != kMultiHeadAttention) continue;
      for (const int i : {0, 1, 2})
        set(i, Role::kActivation, range_of(values.at(node.inputs[static_cast<size_t>(i)])));
      set(kProbabilities, Role::kActivation,
          {QuantSpec{8, Uniform{}, PerTensor{}, Range{}}, {1.0f / 255.0f}, {0}, {}});
    }
    plan = lower(graph_, sites, {.round_weights = true});
    want_ = values.at(output);
    got_ = Simulator(plan).run(inputs).at(0);
    expect_equal_runs(inputs);
  }

  double snr() const {
    double signal = 0, error = 0;
    for (size_t i = 0; i < want_.as<float>().size(); ++i) {
      const double w = want_.as<float>()[i], g = got_.as<float>()[i];
      signal += w * w;
      error += (w - g) * (w - g);
    }
    return 10 * std::log10(signal / error);
  }
  int count(const std::string& op) const {
    return static_cast<int>(std::count_if(plan.steps.begin(), plan.steps.end(),
                                          [&](const Step& step) { return step.op == op; }));
  }
  const Step& step(const std::string& op) const {
    return *std::find_if(plan.steps.begin(), plan.steps.end(),
                         [&](const Step& each) { return each.op == op; });
  }

  RecogniseReport report;
  Plan plan;

 private:
  void expect_equal_runs(const std::vector<Tensor>& inputs) const {
    for (const std::string& isa : runtime::available_isas()) {
      for (const int threads : {1, 2}) {
        ThreadPool pool(threads);
        Session session(Program::from_plan(plan, {.isa = isa}), {1, &pool, 0.0});
        Tensor out(DType::kF32, got_.shape());
        std::vector<ConstTensorView> in;
        for (const Tensor& input : inputs) in.push_back(input.view());
        const TensorView to{out.data(), DType::kF32, out.shape()};
        session.run(in, {&to, 1});
        EXPECT_EQ(std::memcmp(out.data(), got_.data(), out.bytes()), 0) << isa << " " << threads;
      }
    }
  }

  Graph graph_;
  Tensor want_, got_;
};

// Swin v2 with a batch of 1: shifted windows of 4 x 4 on 8 x 8 places, cosine similarity with a
// factor a head, position bias, windows that must not see across the edge; the leading axis of
// windows is no batch.
TEST(TransformerForms, ShiftedWindowsWithABatchOfOne) {
  constexpr int64_t side = 8, window = 4, heads = 3, width = 5, c = heads * width, tokens = 16;
  Form f;
  const ValueId image = f.input("image", {dim(1), dim(side), dim(side), dim(c)});
  const ValueId rolled = f.roll(f.roll(image, 1, side, 2), 2, side, 2);
  const ValueId apart =
      f.transpose(f.reshape(rolled, {1, 2, window, 2, window, c}), {0, 1, 3, 2, 4, 5});
  const ValueId windows = f.reshape(apart, {4, tokens, c});
  const ValueId qkv = f.linear(windows, c, 3 * c, "qkv");
  const ValueId split = f.transpose(f.reshape(qkv, {4, tokens, 3, heads, width}), {2, 0, 3, 1, 4});
  const auto part = [&](int64_t i) {
    return f.node(kSqueeze, {f.slice(split, 0, i, i + 1), f.integers({0})});
  };
  const auto unit = [&](ValueId x) {
    const ValueId size =
        f.node(kReduceL2, {x, f.integers({-1})}, attributes({{"keepdims", int64_t{1}}}));
    const ValueId kept = f.node(kClip, {size, f.number(1e-12f)});
    return f.node(kDiv, {x, f.node(kExpand, {kept, f.integers({1, 1, 1, width})})});
  };
  const ValueId product =
      f.node(kMatMul, {unit(part(0)), f.transpose(unit(part(1)), {0, 1, 3, 2})});
  const ValueId scaled = f.node(kMul, {product, f.floats("logit", {heads, 1, 1}, {4, 8, 16})});
  const ValueId biased = f.node(
      kAdd, {scaled, f.floats("bias", {heads, tokens, tokens}, f.normal(heads * 256, 0.5f))});
  std::vector<float> mask(4 * 256, 0.0f);
  for (size_t i = 256; i < mask.size(); ++i) {
    const size_t w = i / 256, query = i / 16 % 16, key = i % 16;
    const auto region = [&](size_t t) { return (w & 1 ? t % 4 / 2 : 0) + (w & 2 ? t / 8 * 2 : 0); };
    mask[i] = region(query) == region(key) ? 0.0f : -100.0f;
  }
  const ValueId masked = f.node(kAdd, {f.reshape(biased, {1, 4, heads, tokens, tokens}),
                                       f.floats("mask", {4, 1, tokens, tokens}, mask)});
  const ValueId p = f.softmax(f.reshape(masked, {4, heads, tokens, tokens}));
  const ValueId mixed =
      f.reshape(f.transpose(f.node(kMatMul, {p, part(2)}), {0, 2, 1, 3}), {4, tokens, c});
  const ValueId out = f.linear(mixed, c, c, "proj");
  const ValueId together =
      f.reshape(f.transpose(f.reshape(out, {1, 2, 2, window, window, c}), {0, 1, 3, 2, 4, 5}),
                {1, side, side, c});
  const ValueId back = f.roll(f.roll(together, 1, side, side - 2), 2, side, side - 2);
  const ValueId y = f.node(kAdd, {image, f.norm(back, c)});
  const Deployed d(f, y, {Tensor::of<float>({1, side, side, c}, f.normal(side * side * c, 1))});
  EXPECT_EQ(d.count("attention"), 1);
  EXPECT_EQ(d.count("linear"), 4);  // q, k, v, projection
  EXPECT_EQ(d.count("l2_norm"), 2);
  EXPECT_EQ(d.count("matmul") + d.count("softmax"), 0);
  const Step& attention = d.step("attention");
  EXPECT_EQ(d.plan.tensor(attention, "bias").shape(), (Shape{1, heads, tokens, tokens}));
  EXPECT_EQ(d.plan.tensor(attention, "mask").shape(), (Shape{4, tokens, tokens}));
  EXPECT_EQ(d.plan.tensor(attention, "m").size(), heads);
  EXPECT_EQ(d.plan.buffers[static_cast<size_t>(d.plan.inputs[0])].item_shape,
            (Shape{side, side, c}));
  EXPECT_GT(d.snr(), kLeastSnr);
}

// One head, norms behind the branches, q, k and v from linears of their own, a front end in float.
TEST(TransformerForms, PostNormWithOneHeadAndAFloatFrontEnd) {
  constexpr int64_t tokens = 9, c = 24;
  Form f;
  const ValueId audio = f.input("audio", {dim("batch"), dim(tokens), dim(40)});
  const ValueId front = f.linear(audio, 40, 30, "float.transform", false);
  const ValueId squares = f.node(kMul, {front, f.floats("window", {30}, f.normal(30, 1))});
  const ValueId x = f.linear(f.linear(squares, 30, 20, "float.filters"), 20, c, "embed");
  const ValueId q = f.linear(x, c, c, "q", false), k = f.linear(x, c, c, "k", false),
                v = f.linear(x, c, c, "v", false);
  const ValueId scores =
      f.node(kMul, {f.node(kMatMul, {q, f.transpose(k, {0, 2, 1})}), f.number(0.2f)});
  const ValueId mixed = f.linear(f.node(kMatMul, {f.softmax(scores), v}), c, c, "out");
  const ValueId first = f.norm(f.node(kAdd, {x, mixed}), c);
  const ValueId hidden = f.node(kRelu, {f.linear(first, c, 48, "up")});
  const ValueId second = f.norm(f.node(kAdd, {first, f.linear(hidden, 48, c, "down")}), c);
  const Deployed d(f, f.softmax(f.linear(second, c, 6, "head")),
                   {Tensor::of<float>({1, tokens, 40}, f.normal(tokens * 40, 1))});
  EXPECT_EQ(d.count("matmul"), 2);
  EXPECT_EQ(d.count("softmax"), 1);
  EXPECT_EQ(d.count("attention"), 1);
  EXPECT_EQ(d.count("linear"), 8);
  EXPECT_GT(d.snr(), kLeastSnr);
}

// A causal mask is keys left out; a product of two activations that is no attention stays in float.
TEST(TransformerForms, CausalMaskAndFloatProduct) {
  constexpr int64_t tokens = 12, heads = 2, width = 8, c = heads * width;
  Form f;
  const ValueId x = f.input("x", {dim("batch"), dim(tokens), dim(c)});
  const auto apart = [&](const char* name) {
    return f.transpose(f.reshape(f.linear(x, c, c, name), {0, tokens, heads, width}), {0, 2, 1, 3});
  };
  const ValueId q = apart("q"), k = apart("k"), v = apart("v");
  std::vector<float> mask(tokens * tokens, 0.0f);
  for (int64_t i = 0; i < tokens * tokens; ++i) {
    if (i % tokens > i / tokens) mask[static_cast<size_t>(i)] = -3.4e38f;
  }
  const ValueId scores = f.node(kAdd, {f.node(kMatMul, {q, f.transpose(k, {0, 1, 3, 2})}),
                                       f.floats("mask", {1, 1, tokens, tokens}, mask)});
  const ValueId mixed =
      f.reshape(f.transpose(f.node(kMatMul, {f.softmax(scores), v}), {0, 2, 1, 3}), {0, tokens, c});
  const ValueId y = f.linear(mixed, c, c, "out");
  const ValueId gram = f.node(kMatMul, {y, f.transpose(y, {0, 2, 1})});
  const Deployed d(f, gram, {Tensor::of<float>({1, tokens, c}, f.normal(tokens * c, 1))});
  ASSERT_EQ(d.count("attention"), 1);
  EXPECT_FALSE(d.step("attention").tensors.contains("bias"));
  EXPECT_EQ(d.plan.tensor(d.step("attention"), "mask").shape(), (Shape{1, tokens, tokens}));
  EXPECT_EQ(d.count("matmul"), 1);
  EXPECT_GT(d.snr(), kLeastSnr);
}

}  // namespace
}  // namespace repquant
