#include "repquant/reconstruct/correct_biases.h"

#include <optional>

#include "repquant/observe/block_walk.h"
#include "repquant/quantize/fake_quantize.h"
#include "repquant/reconstruct/layer_input.h"
#include "repquant/reconstruct/second_order.h"

namespace repquant::reconstruct {
namespace {

// Sums over tokens by chunk, added in order.
struct Sums {
  std::vector<at::Tensor> sums;
  std::vector<int64_t> counts;
  explicit Sums(int64_t chunks)
      : sums(static_cast<size_t>(chunks)), counts(static_cast<size_t>(chunks)) {}
  at::Tensor mean() const {
    at::Tensor total = sums[0].clone();
    int64_t count = counts[0];
    for (size_t i = 1; i < sums.size(); ++i) {
      total += sums[i];
      count += counts[i];
    }
    return total / static_cast<double>(count);
  }
};

bool corrected(const Workspace& ws, NodeId id) {
  const OpKind op = ws.graph.node(id).op;
  const bool layer = op == OpKind::kLinear || op == OpKind::kConv;
  return layer && ws.plan.find({id, 1}) != nullptr && ws.has_constant(id, 2);
}

// Mean of what the node puts out, a channel.
at::Tensor mean_output(const Workspace& ws, observe::BlockWalk& walk, NodeId id) {
  const bool image = ws.graph.node(id).op == OpKind::kConv;
  Sums parts(walk.chunks());
  walk.visit({id, observe::kNodeOutput}, [&](int64_t chunk, const at::Tensor& y) {
    const at::Tensor rows =
        image ? y.transpose(0, 1).reshape({y.size(1), -1}) : y.reshape({-1, y.size(-1)}).t();
    parts.sums[static_cast<size_t>(chunk)] = rows.sum(1, false, at::kDouble);
    parts.counts[static_cast<size_t>(chunk)] = rows.size(1);
  });
  return parts.mean();
}

at::Tensor mean_input(const Workspace& ws, observe::BlockWalk& walk, NodeId id) {
  const Assignment* input = ws.plan.find({id, 0});
  Sums parts(walk.chunks());
  walk.visit({id, 0}, [&](int64_t chunk, const at::Tensor& tensor) {
    const at::Tensor x = input != nullptr ? quantize::fake_quantize(tensor, input->params) : tensor;
    const at::Tensor rows = layer_input(ws, id, x);
    parts.sums[static_cast<size_t>(chunk)] = rows.sum(1, false, at::kDouble);
    parts.counts[static_cast<size_t>(chunk)] = rows.size(1);
  });
  return parts.mean();
}

}  // namespace

void correct_biases(Workspace& ws, bool outputs) {
  const SiteHook hook = quantize::plan_hook(ws.plan);
  observe::Chunks inputs;
  for (int64_t begin = 0; begin < ws.calibration.count; begin += 8) {
    inputs.push_back(
        ws.calibration.load(begin, std::min<int64_t>(begin + 8, ws.calibration.count)));
  }
  observe::Chunks floats = inputs;
  for (const observe::Block& block : observe::blocks(ws.graph)) {
    observe::BlockWalk walk(ws, ws.weights, block, inputs, hook);
    std::optional<observe::BlockWalk> reference;
    if (outputs) reference.emplace(ws, ws.reference, block, floats, SiteHook{});
    for (const NodeId id : block.nodes) {
      ws.throw_if_stopped();
      if (corrected(ws, id)) {
        const at::Tensor& before = ws.reference.at(ws.graph.node(id).inputs[1]);
        const at::Tensor shift =
            outputs ? (mean_output(ws, *reference, id) - mean_output(ws, walk, id)).to(at::kFloat)
                    : bias_correction(before, ws.constant(id, 1), mean_input(ws, walk, id));
        ws.set_constant(id, 2, ws.constant(id, 2) + shift);
      }
      walk.step(id);
      if (reference) reference->step(id);
    }
    inputs = walk.output();
    if (reference) floats = reference->output();
  }
}

}  // namespace repquant::reconstruct
