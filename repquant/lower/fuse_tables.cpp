#include "repquant/lower/fuse_tables.h"

#include <algorithm>

namespace repquant::lowering {
namespace {

// By buffer: the step that writes it (nullptr: an input) and how many operands and outputs read it.
struct Uses {
  std::vector<Step*> writer;
  std::vector<int> readers;
  explicit Uses(Plan& plan) : writer(plan.buffers.size()), readers(plan.buffers.size()) {
    for (Step& step : plan.steps) {
      for (const int out : step.out) writer[static_cast<size_t>(out)] = &step;
      for (const int in : step.in) ++readers[static_cast<size_t>(in)];
    }
    for (const int out : plan.outputs) ++readers[static_cast<size_t>(out)];
  }
};

void take_table(Plan& plan, Step& table, Step& product) {
  auto node = plan.tensors.extract(table.tensors.at("lut"));
  node.key() = node.mapped().name = product.name + ".lut";
  product.tensors["lut"] = node.key();
  plan.tensors.insert(std::move(node));
  product.out = table.out;
}

void drop_buffers(Plan& plan, const std::vector<bool>& dropped) {
  std::vector<int> index(plan.buffers.size());
  std::vector<Buffer> kept;
  for (size_t i = 0; i < plan.buffers.size(); ++i) {
    index[i] = static_cast<int>(kept.size());
    if (!dropped[i]) kept.push_back(std::move(plan.buffers[i]));
  }
  plan.buffers = std::move(kept);
  const auto renumber = [&index](std::vector<int>& buffers) {
    for (int& buffer : buffers) buffer = index[static_cast<size_t>(buffer)];
  };
  for (Step& step : plan.steps) renumber(step.in), renumber(step.out);
  renumber(plan.inputs), renumber(plan.outputs);
}

}  // namespace

void fuse_tables(Plan& plan) {
  const Uses uses(plan);
  std::vector<bool> dropped(plan.buffers.size(), false);
  const auto fused = [&](Step& step) {
    if (step.op != "table") return false;
    const auto between = static_cast<size_t>(step.in[0]);
    Step* product = uses.writer[between];
    if (product == nullptr || uses.readers[between] != 1 || product->tensors.contains("lut") ||
        (product->op != "linear" && product->op != "conv"))
      return false;
    take_table(plan, step, *product);
    dropped[between] = true;
    return true;
  };
  std::vector<Step> kept;
  std::vector<bool> gone;
  for (Step& step : plan.steps) gone.push_back(fused(step));
  for (size_t i = 0; i < gone.size(); ++i)
    if (!gone[i]) kept.push_back(std::move(plan.steps[i]));
  plan.steps = std::move(kept);
  drop_buffers(plan, dropped);
}

}  // namespace repquant::lowering
