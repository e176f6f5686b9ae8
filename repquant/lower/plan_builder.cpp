#include "repquant/lower/plan_builder.h"

namespace repquant::lowering {

int PlanBuilder::add_buffer(std::string name, DType dtype, Shape item_shape, int bits) {
  plan_.buffers.push_back({std::move(name), dtype, std::move(item_shape), bits});
  return static_cast<int>(plan_.buffers.size()) - 1;
}

Step& PlanBuilder::add_step(const std::string& op, const std::string& name, std::vector<int> in,
                            int out) {
  std::string unique = name;
  for (int i = 2; !names_.insert(unique).second; ++i) unique = name + "_" + std::to_string(i);
  Step step;
  step.op = op;
  step.name = std::move(unique);
  step.in = std::move(in);
  step.out = {out};
  plan_.steps.push_back(std::move(step));
  return plan_.steps.back();
}

void PlanBuilder::add_tensor(Step& step, const std::string& role, Tensor tensor) {
  PlanTensor entry;
  entry.name = step.name + "." + role;
  entry.data = std::move(tensor);
  entry.role = role;
  step.tensors[role] = entry.name;
  plan_.tensors[entry.name] = std::move(entry);
}

void PlanBuilder::add_weights(Step& step, std::span<const int8_t> codes, int64_t n, int64_t k,
                              int bits) {
  const std::string role(1, 'w'), name = step.name + "." + role;
  step.tensors[role] = name;
  plan_.tensors[name] = {name, pack_weights(codes, n, k, bits), layout_for(bits), bits, {n, k},
                         role};
}

}  // namespace repquant::lowering
