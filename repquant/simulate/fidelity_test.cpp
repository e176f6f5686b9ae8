// Whole small models: the simulator against the float graph with fake-quantized sites.
#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "repquant/core/format/format.h"
#include "repquant/core/format/log.h"
#include "repquant/core/format/uniform.h"
#include "repquant/graph/reference/reference.h"
#include "repquant/lower/lower.h"
#include "repquant/lower/testing.h"
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

Tensor attention(const Node& node, const Tensor& q, const Tensor& k, const Tensor& v, const QParams& params) {
  const size_t heads = static_cast<size_t>(node.attrs.integer("heads", 1));
  const size_t tokens = static_cast<size_t>(q.shape()[1]), width = static_cast<size_t>(q.shape()[2]);
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
      if (site != nullptr && site->role == Role::kActivation) fake_quantize_tensor(inputs.back(), site->params);
    }
    if (node.op == OpKind::kLinear && hands_out_codes(model, node)) round_bias(model, id, inputs[2]);
    if (node.op == OpKind::kMultiHeadAttention) {
      const QParams& params = model.plan.find({id, kProbabilities})->params;
      values[node.outputs[0]] = attention(node, inputs[0], inputs[1], inputs[2], params);
      continue;
    }
    if (node.op == OpKind::kExpand) {  // batch 1
      values[node.outputs[0]] = inputs[0];
      continue;
    }
    for (const Tensor& tensor : inputs) pointers.push_back(&tensor);
    auto outputs = reference::evaluate_node(node, pointers);
    if (!outputs) throw Error(ErrorCode::kInternal, "no reference for " + node.name);
    for (size_t i = 0; i < node.outputs.size(); ++i) values[node.outputs[i]] = std::move((*outputs)[i]);
  }
  return values.at(graph.outputs[0]);
}

TEST(Fidelity, MatchesFakeQuantizedGraph) {
  for (const testing::TinyVit& options : testing::tiny_vit_variants()) {
    SCOPED_TRACE("seed " + std::to_string(options.seed));
    const testing::Model model = testing::tiny_vit(options);
    const Plan plan = lower(model.graph, model.plan);
    const Simulator simulator(plan);
    for (uint32_t image = 0; image < 4; ++image) {
      const Tensor input = testing::random_images(options, 1, 100 * options.seed + image);
      const Tensor expected = fake_quantized(model, input);
      const Tensor got = simulator.run({input})[0];
      ASSERT_EQ(got.shape(), (Shape{1, options.classes}));
      double worst = 0, size = 0;
      for (size_t i = 0; i < got.as<float>().size(); ++i) {
        worst = std::max(worst, std::fabs(double(got.as<float>()[i]) - double(expected.as<float>()[i])));
        size = std::max(size, std::fabs(double(expected.as<float>()[i])));
      }
      std::printf("seed %u image %u: %g of %g\n", options.seed, image, worst, size);
    }
  }
}

}  // namespace
}  // namespace repquant
