// Whole small models: the simulator against the float graph with fake-quantized sites.
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "repquant/core/error.h"
#include "repquant/core/format/format.h"
#include "repquant/core/format/log.h"
#include "repquant/core/format/uniform.h"
#include "repquant/graph/reference/reference.h"
#include "repquant/graph/testing_vit.h"
#include "repquant/lower/lower.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

void fake_quantize_tensor(Tensor& tensor, const QParams& params) {
  const int64_t width = tensor.shape().back(), scales = static_cast<int64_t>(params.scale.size());
  auto x = tensor.as<float>();
  for (int64_t i = 0; i < tensor.size(); ++i) {
    const size_t at = static_cast<size_t>(i);
    x[at] = fake_quantize(x[at], params, i % width / (width / scales));
  }
}

// Softmax row in double, then what the site makes of it.
void fake_quantize_row(std::vector<double>& p, const QParams& params) {
  const auto* uniform = std::get_if<Uniform>(&params.spec.format);
  if (uniform == nullptr || params.spec.bits < 8) {
    for (double& v : p) v = static_cast<double>(fake_quantize(static_cast<float>(v), params));
    return;
  }
  const double most = *std::max_element(p.begin(), p.end());
  double sum = 0.0;
  for (double& v : p) sum += v = round_half_even(255.0 * v / most);
  for (double& v : p) v /= sum;
}

Tensor attention(const Node& node, const Tensor& q, const Tensor& k, const Tensor& v,
                 const QParams& params) {
  const size_t heads = static_cast<size_t>(node.attrs.integer("heads", 1));
  const size_t tokens = static_cast<size_t>(q.shape()[1]),
               width = static_cast<size_t>(q.shape()[2]);
  const double scale = static_cast<double>(node.attrs.real("scale", 0.0f));
  const auto a = q.as<float>(), b = k.as<float>(), c = v.as<float>();
  Tensor out(DType::kF32, q.shape());
  for (size_t h = 0; h < heads; ++h) {
    const size_t first = h * (width / heads), last = first + width / heads;
    for (size_t i = 0; i < tokens; ++i) {
      std::vector<double> p(tokens);
      for (size_t j = 0; j < tokens; ++j) {
        for (size_t d = first; d < last; ++d) {
          p[j] += static_cast<double>(a[i * width + d]) * static_cast<double>(b[j * width + d]);
        }
      }
      double sum = 0.0;
      const double most = *std::max_element(p.begin(), p.end());
      for (double& x : p) sum += x = std::exp(scale * (x - most));
      for (double& x : p) x /= sum;
      fake_quantize_row(p, params);
      for (size_t d = first; d < last; ++d) {
        double u = 0.0;
        for (size_t j = 0; j < tokens; ++j) u += p[j] * static_cast<double>(c[j * width + d]);
        out.as<float>()[i * width + d] = static_cast<float>(u);
      }
    }
  }
  return out;
}

// Kernel = stride: each output pixel is one patch times the weight.
Tensor patch_embedding(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const int64_t n = weight.shape()[0], c = weight.shape()[1], p = weight.shape()[2];
  const int64_t size = x.shape()[2], side = size / p;
  Tensor out(DType::kF32, {1, n, side, side});
  for (int64_t i = 0; i < out.size(); ++i) {
    const int64_t channel = i / (side * side), row = i / side % side, column = i % side;
    double sum = static_cast<double>(bias.as<float>()[static_cast<size_t>(channel)]);
    for (int64_t k = 0; k < c * p * p; ++k) {
      const int64_t y = row * p + k / p % p,
                    at = (k / (p * p) * size + y) * size + column * p + k % p;
      sum += static_cast<double>(x.as<float>()[static_cast<size_t>(at)]) *
             static_cast<double>(weight.as<float>()[static_cast<size_t>(channel * c * p * p + k)]);
    }
    out.as<float>()[static_cast<size_t>(i)] = static_cast<float>(sum);
  }
  return out;
}

// Layers that hand out codes hold their bias in units of the accumulator.
bool hands_out_codes(const testing::Model& model, const Node& node) {
  for (const NodeId reader : model.graph.consumers(node.outputs[0])) {
    const Node& next = model.graph.node(reader);
    const bool attention = next.op == OpKind::kSplit || next.op == OpKind::kMultiHeadAttention;
    if (attention || model.plan.find({reader, 0}) != nullptr) return true;
  }
  return false;
}

void round_bias(const testing::Model& model, NodeId id, Tensor& bias) {
  const QParams& input = model.plan.find({id, 0})->params;
  const QParams& weight = model.plan.find({id, 1})->params;
  auto b = bias.as<float>();
  for (size_t n = 0; n < b.size(); ++n) {
    const double unit = static_cast<double>(input.scale[0]) * static_cast<double>(weight.scale[n]);
    b[n] = static_cast<float>(round_half_even(static_cast<double>(b[n]) / unit) * unit);
  }
}

Tensor fake_quantized(const testing::Model& model, const Tensor& image) {
  const Graph& graph = model.graph;
  reference::Bindings values{{graph.inputs[0], image}};
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    std::vector<Tensor> inputs;
    std::vector<const Tensor*> pointers;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId value = node.inputs[i];
      inputs.push_back(graph.is_constant(value) ? *graph.value(value).constant : values.at(value));
      const Assignment* site = model.plan.find({id, static_cast<int>(i)});
      if (site != nullptr && site->role == Role::kActivation)
        fake_quantize_tensor(inputs.back(), site->params);
    }
    if (node.op == OpKind::kLinear && hands_out_codes(model, node))
      round_bias(model, id, inputs[2]);
    if (node.op == OpKind::kMultiHeadAttention) {
      const QParams& params = model.plan.find({id, kProbabilities})->params;
      values[node.outputs[0]] = attention(node, inputs[0], inputs[1], inputs[2], params);
      continue;
    }
    if (node.op == OpKind::kConv) {
      values[node.outputs[0]] = patch_embedding(inputs[0], inputs[1], inputs[2]);
      continue;
    }
    if (node.op == OpKind::kExpand) {  // batch 1
      values[node.outputs[0]] = inputs[0];
      continue;
    }
    for (const Tensor& tensor : inputs) pointers.push_back(&tensor);
    auto outputs = reference::evaluate_node(node, pointers);
    if (!outputs) throw Error(ErrorCode::kInternal, "no reference for " + node.name);
    for (size_t i = 0; i < node.outputs.size(); ++i)
      values[node.outputs[i]] = std::move((*outputs)[i]);
  }
  return values.at(graph.outputs[0]);
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double worst = 0.0;
  for (size_t i = 0; i < a.as<float>().size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(a.as<float>()[i]) -
                                      static_cast<double>(b.as<float>()[i])));
  }
  return worst;
}

// Without a code on the other side of a rounding boundary the logits are the same sum of the same
// codes: one fmaf against a sum in double, a few ulp of 2^-24. Boundaries lie within f32 rounding
// of a value about once in 10^5 codes, so one or two of the 64 runs may differ by a code.
TEST(Fidelity, MatchesFakeQuantizedGraph) {
  int equal = 0, runs = 0;
  for (const testing::TinyVit& options : testing::tiny_vit_variants()) {
    SCOPED_TRACE("seed " + std::to_string(options.seed));
    const testing::Model model = testing::tiny_vit(options);
    const Plan plan = lower(model.graph, model.plan);
    const Simulator simulator(plan);
    for (uint32_t image = 0; image < 4; ++image, ++runs) {
      const Tensor input = testing::random_images(options, 1, 100 * options.seed + image);
      const Tensor expected = fake_quantized(model, input);
      const Tensor got = simulator.run({input})[0];
      ASSERT_EQ(got.shape(), (Shape{1, options.classes}));
      const double size = largest_difference(expected, Tensor(DType::kF32, expected.shape()));
      EXPECT_GT(size, 0.1);
      if (largest_difference(got, expected) <= 16.0 * size * 0x1p-24) ++equal;
    }
  }
  EXPECT_GE(equal, runs - 2);
}

TEST(Fidelity, ItemsDoNotInfluenceEachOther) {
  const testing::TinyVit options;
  const testing::Model model = testing::tiny_vit(options);
  const Plan plan = lower(model.graph, model.plan);
  const Simulator simulator(plan);
  const Tensor three = testing::random_images(options, 3, 5);
  const Tensor all = simulator.run({three})[0];
  const int64_t size = three.size() / 3;
  for (int64_t i = 0; i < 3; ++i) {
    Tensor one(DType::kF32, {1, options.channels, options.image, options.image});
    std::copy_n(three.as<float>().begin() + i * size, size, one.as<float>().begin());
    const Tensor got = simulator.run({one})[0];
    EXPECT_TRUE(std::equal(got.as<float>().begin(), got.as<float>().end(),
                           all.as<float>().begin() + i * options.classes));
  }
}

TEST(Fidelity, TapSeesEveryStepOfEveryItem) {
  const testing::TinyVit options;
  const testing::Model model = testing::tiny_vit(options);
  const Plan plan = lower(model.graph, model.plan);
  size_t calls = 0;
  const Simulator simulator(plan);
  simulator.run({testing::random_images(options, 2, 5)}, [&](const Step& step, int out,
                                                             ConstTensorView view) {
    EXPECT_EQ(step.name, plan.steps[calls % plan.steps.size()].name);
    const Buffer& buffer = plan.buffers[static_cast<size_t>(step.out.at(static_cast<size_t>(out)))];
    EXPECT_EQ(view.dtype, buffer.dtype);
    EXPECT_EQ(Shape(view.shape.begin(), view.shape.end()), buffer.item_shape);
    ++calls;
  });
  EXPECT_EQ(calls, 2 * plan.steps.size());
}

TEST(Fidelity, RefusesOtherInputs) {
  const testing::TinyVit options;
  const testing::Model model = testing::tiny_vit(options);
  const Plan plan = lower(model.graph, model.plan);
  const Simulator simulator(plan);
  EXPECT_THROW(simulator.run({}), Error);
  EXPECT_THROW(simulator.run({Tensor(DType::kF32, {1, 3, 8, 9})}), Error);
  EXPECT_THROW(simulator.run({Tensor(DType::kU8, {1, 3, 8, 8})}), Error);
}

}  // namespace
}  // namespace repquant
