#pragma once
// A tiny random vision transformer as a workspace, for tests of methods.
#include <gtest/gtest.h>

#include "repquant/graph/testing_vit.h"
#include "repquant/methods/method.h"
#include "repquant/quantize/fake_quantize.h"

namespace repquant::testing {

inline void fill_targets(Workspace& ws, int weight_bits, int activation_bits) {
  for (const NodeId id : ws.graph.order()) {
    const OpKind op = ws.graph.node(id).op;
    if (op == OpKind::kConv || op == OpKind::kLinear) {
      const bool conv = op == OpKind::kConv;
      ws.targets[{id, 0}] = {Role::kActivation, conv ? 8 : activation_bits, "auto", false};
      ws.targets[{id, 1}] = {Role::kWeight, conv ? 8 : weight_bits, "auto", false};
    }
    if (op != OpKind::kMultiHeadAttention) continue;
    for (const int input : {0, 1, 2, kProbabilities}) {
      ws.targets[{id, input}] = {Role::kActivation, activation_bits, "auto", false};
    }
  }
}

// `samples` images; the pool must outlive the workspace.
inline Workspace tiny_workspace(ThreadPool& pool, int bits, int64_t samples = 20) {
  TinyVit options;
  options.image = 16;           // 16 tokens
  options.class_token = false;  // the graph's class token has batch 1
  Workspace ws = make_workspace(tiny_vit(options).graph);
  torch::manual_seed(99);
  const at::Tensor images = at::randn({samples, 3, 16, 16});
  ws.calibration = {samples,
                    [images](int64_t b, int64_t e) { return images.slice(0, b, e).contiguous(); }};
  ws.pool = &pool;
  make_parameters_explicit(ws);
  ws.reference = ws.weights;
  fill_targets(ws, bits, bits);
  return ws;
}

inline at::Tensor float_output(const Workspace& ws, const WeightMap& weights) {
  const at::NoGradGuard no_grad;
  return Interpreter(ws.graph, weights)
      .run(std::vector<at::Tensor>{ws.calibration.load(0, ws.calibration.count)})[0];
}

inline at::Tensor quantized_output(const Workspace& ws) {
  const at::NoGradGuard no_grad;
  return Interpreter(ws.graph, ws.weights)
      .run(std::vector<at::Tensor>{ws.calibration.load(0, ws.calibration.count)},
           quantize::plan_hook(ws.plan))[0];
}

inline double output_error(const Workspace& ws, const at::Tensor& want) {
  return (quantized_output(ws) - want).square().mean(at::kDouble).item<double>();
}

inline void run_method(Workspace& ws, const std::string& name, const OptionValues& options = {}) {
  ws.pass = name;
  find_method(name).run(ws, options);
}

}  // namespace repquant::testing
