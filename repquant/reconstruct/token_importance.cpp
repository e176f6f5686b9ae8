#include "repquant/reconstruct/token_importance.h"

#include "repquant/core/random.h"

namespace repquant::reconstruct {

at::Tensor token_importance(const Workspace& ws, std::span<const observe::Block> later,
                            const at::Tensor& output, double share, uint64_t seed) {
  if (share <= 0 || output.dim() != 3 || later.empty()) return {};
  constexpr int projections = 4;
  const at::AutoGradMode grad(true);
  const Interpreter interpreter(ws.graph, ws.reference);
  const at::Tensor start = output.detach().clone().requires_grad_(true);
  ValueMap values{{later.front().input, start}};
  for (const observe::Block& block : later) {
    const ValueId keep[] = {block.output};
    interpreter.run_nodes(block.nodes, values, keep);
  }
  const at::Tensor result = values.at(later.back().output);
  at::Tensor energy = at::zeros({output.size(1)}, at::kDouble);
  uint64_t state = seed;
  for (int i = 0; i < projections; ++i) {
    std::vector<float> signs(static_cast<size_t>(result.numel()));
    for (float& sign : signs) sign = (splitmix64(state) & 1) != 0 ? 1.0f : -1.0f;
    const at::Tensor projected = (result * at::tensor(signs).reshape(result.sizes())).sum();
    const at::Tensor g = torch::autograd::grad({projected}, {start}, {}, true)[0];
    energy += g.to(at::kDouble).square().sum(std::vector<int64_t>{0, 2});
  }
  const at::Tensor relative = energy / energy.mean().clamp_min(1e-300);
  return ((1 - share) + share * relative).to(at::kFloat).reshape({-1, 1});
}

}  // namespace repquant::reconstruct
