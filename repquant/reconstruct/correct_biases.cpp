#include "repquant/reconstruct/correct_biases.h"

#include "repquant/observe/block_walk.h"
#include "repquant/quantize/fake_quantize.h"
#include "repquant/reconstruct/layer_input.h"
#include "repquant/reconstruct/second_order.h"

namespace repquant::reconstruct {
namespace {

void correct(Workspace& ws, observe::BlockWalk& walk, NodeId id) {
  const Assignment* input = ws.plan.find({id, 0});
  std::vector<at::Tensor> sums(static_cast<size_t>(walk.chunks()));
  std::vector<int64_t> counts(sums.size());
  walk.visit({id, 0}, [&](int64_t chunk, const at::Tensor& tensor) {
    const at::Tensor x = input != nullptr ? quantize::fake_quantize(tensor, input->params) : tensor;
    const at::Tensor rows = layer_input(ws, id, x);
    sums[static_cast<size_t>(chunk)] = rows.sum(1, false, at::kDouble);
    counts[static_cast<size_t>(chunk)] = rows.size(1);
  });
  at::Tensor mean = sums[0].clone();
  int64_t count = counts[0];
  for (size_t i = 1; i < sums.size(); ++i) {
    mean += sums[i];
    count += counts[i];
  }
  mean /= static_cast<double>(count);
  const at::Tensor& reference = ws.reference.at(ws.graph.node(id).inputs[1]);
  ws.set_constant(id, 2, ws.constant(id, 2) + bias_correction(reference, ws.constant(id, 1), mean));
}

}  // namespace

void correct_biases(Workspace& ws) {
  const SiteHook hook = quantize::plan_hook(ws.plan);
  observe::Chunks inputs;
  for (int64_t begin = 0; begin < ws.calibration.count; begin += 8) {
    inputs.push_back(
        ws.calibration.load(begin, std::min<int64_t>(begin + 8, ws.calibration.count)));
  }
  for (const observe::Block& block : observe::blocks(ws.graph)) {
    observe::BlockWalk walk(ws, ws.weights, block, inputs, hook);
    for (const NodeId id : block.nodes) {
      ws.throw_if_stopped();
      const OpKind op = ws.graph.node(id).op;
      const bool layer = op == OpKind::kLinear || op == OpKind::kConv;
      const bool rounded = layer && ws.plan.find({id, 1}) != nullptr;
      if (rounded && ws.has_constant(id, 2)) correct(ws, walk, id);
      walk.step(id);
    }
    inputs = walk.output();
  }
}

}  // namespace repquant::reconstruct
