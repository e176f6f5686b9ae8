#include "repquant/pipeline/channel_ranges.h"

#include "repquant/quantize/fake_quantize.h"

namespace repquant {
namespace {

std::vector<double> numbers(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kDouble).contiguous();
  return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

// The per-tensor uniform code that a reader puts on the output of `norm`.
const QParams* code_of(const Workspace& ws, NodeId norm) {
  for (const NodeId reader : ws.graph.consumers(ws.graph.node(norm).outputs.at(0))) {
    const Assignment* found = ws.plan.find({reader, 0});
    if (found == nullptr || found->params.scale.size() != 1) continue;
    if (std::holds_alternative<Uniform>(found->params.spec.format)) return &found->params;
  }
  return nullptr;
}

const at::Tensor* parameter(const WeightMap& weights, const Node& node, size_t index) {
  if (index >= node.inputs.size()) return nullptr;
  const auto found = weights.find(node.inputs[index]);
  return found == weights.end() ? nullptr : &found->second;
}

void add_range(nlohmann::json& row, const std::string& name, const at::Tensor& values) {
  const at::Tensor rows = values.reshape({-1, values.size(-1)});
  row[name + "_low"] = numbers(rows.amin(0));
  row[name + "_high"] = numbers(rows.amax(0));
}

// Fold: y' = (y - shift) / r, so that bounds of y' are bounds of y by gain and beta of both.
void add_clip(nlohmann::json& row, const Workspace& ws, const Node& node, const QParams& code) {
  const at::Tensor *g = parameter(ws.reference, node, 1), *b = parameter(ws.reference, node, 2),
                   *folded_g = parameter(ws.weights, node, 1),
                   *folded_b = parameter(ws.weights, node, 2);
  if (g == nullptr || b == nullptr || folded_g == nullptr || folded_b == nullptr) return;
  const auto zero = code.zero_point.empty() ? 0 : code.zero_point[0];
  const double low = -static_cast<double>(zero) * static_cast<double>(code.scale[0]);
  const double high = ((1 << code.spec.bits) - 1 - zero) * static_cast<double>(code.scale[0]);
  // A dead channel has gain 0 before and after: its factor does not matter.
  const at::Tensor factor = at::where(*folded_g == 0, at::ones_like(*g), *g / *folded_g).flatten();
  const at::Tensor shift = b->flatten() - factor * folded_b->flatten();
  const at::Tensor one = factor * low + shift, other = factor * high + shift;
  row["clip_low"] = numbers(at::minimum(one, other));
  row["clip_high"] = numbers(at::maximum(one, other));
}

}  // namespace

nlohmann::json channel_ranges(const Workspace& ws, int64_t samples) {
  nlohmann::json rows = nlohmann::json::array();
  const int64_t count = std::min(samples, ws.calibration.count);
  if (count < 1) return rows;
  const at::NoGradGuard no_grad;
  std::vector<NodeId> norms;
  std::vector<ValueId> kept;
  for (const NodeId id : ws.graph.order()) {
    const Node& node = ws.graph.node(id);
    if (node.op != OpKind::kLayerNorm && node.op != OpKind::kRmsNorm) continue;
    if (code_of(ws, id) == nullptr) continue;
    norms.push_back(id);
    kept.push_back(node.outputs.at(0));
  }
  ValueMap before = load_values(ws, 0, count), after = before;
  Interpreter(ws.graph, ws.reference).run_nodes(ws.graph.order(), before, kept);
  Interpreter(ws.graph, ws.weights)
      .run_nodes(ws.graph.order(), after, kept, quantize::plan_hook(ws.plan));
  for (size_t i = 0; i < norms.size(); ++i) {
    const Node& node = ws.graph.node(norms[i]);
    nlohmann::json row = {{"norm", node.name}};
    add_range(row, "before", before.at(kept[i]));
    add_range(row, "folded", after.at(kept[i]));
    add_clip(row, ws, node, *code_of(ws, norms[i]));
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace repquant
