#include "repquant/reparameterize/output_probe.h"

#include <cmath>

#include "repquant/core/random.h"

namespace repquant::reparameterize {
namespace {

struct Output {
  at::Tensor sum;  // of the signed outputs, a scalar
  double magnitude = 0;
};

Output run(const Workspace& ws, const WeightMap& weights, const at::Tensor& sample) {
  Output result{at::zeros({}, at::kDouble), 0};
  uint64_t state = 0;
  for (const at::Tensor& y : Interpreter(ws.graph, weights).run(std::vector<at::Tensor>{sample})) {
    at::Tensor signs = at::empty({y.numel()}, at::kDouble);
    for (int64_t i = 0; i < y.numel(); ++i)
      signs.data_ptr<double>()[i] = (splitmix64(state) & 1) != 0 ? 1.0 : -1.0;
    result.sum = result.sum + (y.reshape({-1}) * signs).sum();
    result.magnitude += y.abs().sum().item<double>();
  }
  return result;
}

WeightMap in_double(const WeightMap& weights) {
  WeightMap result;
  for (const auto& [id, tensor] : weights)
    result[id] = tensor.is_floating_point() ? tensor.detach().to(at::kDouble) : tensor;
  return result;
}

}  // namespace

OutputProbe::OutputProbe(const Workspace& ws) : weights_(ws.weights) {
  if (ws.calibration.count < 1 || ws.graph.inputs.size() != 1) return;
  for (const NodeId id : ws.graph.order()) {
    const OpKind op = ws.graph.node(id).op;
    if (op == OpKind::kCast || op == OpKind::kCastLike) return;
  }
  const at::NoGradGuard no_grad;
  sample_ = ws.calibration.load(0, 1).to(at::kDouble);
  before_ = run(ws, in_double(ws.weights), sample_).sum.item<double>();
}

OutputProbe::Found OutputProbe::compare(const Workspace& ws) const {
  if (!sample_.defined()) return {};
  const at::AutoGradMode grad(true);
  WeightMap weights = in_double(ws.weights);
  std::vector<at::Tensor> leaves;
  for (auto& [id, tensor] : weights) {
    const auto found = weights_.find(id);
    const bool rewritten = found == weights_.end() || !found->second.is_same(ws.weights.at(id));
    if (rewritten && tensor.is_floating_point()) leaves.push_back(tensor.requires_grad_(true));
  }
  if (leaves.empty()) return {};
  const Output after = run(ws, weights, sample_);
  const std::vector<at::Tensor> slopes =
      torch::autograd::grad({after.sum}, leaves, {}, std::nullopt, false, /*allow_unused=*/true);
  double bound = 0;
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!slopes[i].defined()) continue;
    bound += slopes[i].norm().item<double>() * leaves[i].detach().norm().item<double>();
  }
  bound = 1.1 * 2 * std::exp2(-24) * bound + std::exp2(-40) * after.magnitude;
  return {std::abs(after.sum.item<double>() - before_), bound};
}

void OutputProbe::check(const Workspace& ws) const {
  const Found found = compare(ws);
  REPQUANT_CHECK(found.difference <= found.bound);
}

}  // namespace repquant::reparameterize
