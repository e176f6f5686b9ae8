#include "repquant/reconstruct/layer_error.h"

#include <algorithm>
#include <cmath>

#include "repquant/core/format/uniform.h"
#include "repquant/quantize/fake_quantize.h"
#include "repquant/reconstruct/unit.h"

namespace repquant::reconstruct {
namespace {

void add_rows(Report& report, const std::string& stage, const std::string& layer,
              const ErrorSums& sums) {
  report.add({stage, layer, "output_mse", sums.error / sums.count});
  if (sums.error > 0) report.add({stage, layer, "sqnr_db", sums.sqnr_db()});
  report.add(
      {stage, layer, "cosine", sums.cross / std::max(std::sqrt(sums.energy * sums.got), 1e-300)});
}

// Nothing was quantized or rewritten: every error is 0, and no model has to run to know it.
bool untouched(const Workspace& ws) {
  return ws.plan.all().empty() &&
         std::all_of(ws.weights.begin(), ws.weights.end(), [&](const auto& entry) {
           const auto found = ws.reference.find(entry.first);
           return found != ws.reference.end() && found->second.is_same(entry.second);
         });
}

bool can_measure(const Workspace& ws, int64_t samples) {
  return std::min(samples, ws.calibration.count) > 0;
}

// Both models node by node, the float one first.
void compare(Workspace& ws, const std::string& stage, int64_t samples, const WeightMap& weights,
             const SiteHook& hook) {
  const at::NoGradGuard no_grad;
  const Interpreter floating(ws.graph, ws.reference), quantized(ws.graph, weights);
  ValueMap want = load_values(ws, 0, std::min(samples, ws.calibration.count)), got = want;
  std::map<ValueId, int> uses;
  for (const NodeId id : ws.graph.order()) {
    for (const ValueId v : ws.graph.node(id).inputs) ++uses[v];
  }
  for (const NodeId id : ws.graph.order()) {
    floating.run_node(id, want);
    quantized.run_node(id, got, hook);
    const Node& node = ws.graph.node(id);
    if (is_layer(node.op)) {
      add_rows(ws.report, stage, node.name,
               error_sums(want.at(node.outputs[0]), got.at(node.outputs[0])));
    }
    for (const ValueId v : node.inputs) {
      if (v != kNoValue && --uses[v] == 0) {
        want.erase(v);
        got.erase(v);
      }
    }
  }
}

QParams min_max(const at::Tensor& values, int bits) {
  const UniformParams found =
      uniform_from_range(values.min().item<float>(), values.max().item<float>(), bits, true);
  return {
      {bits, Uniform{}, PerTensor{}, Range{RangeMethod::kMinMax}}, {found.scale}, {found.zero}, {}};
}

}  // namespace

ErrorSums& ErrorSums::operator+=(const ErrorSums& other) {
  error += other.error;
  energy += other.energy;
  got += other.got;
  cross += other.cross;
  count += other.count;
  return *this;
}

double ErrorSums::sqnr_db() const { return 10 * std::log10(energy / std::max(error, 1e-300)); }

ErrorSums error_sums(const at::Tensor& want, const at::Tensor& got) {
  const at::Tensor w = want.contiguous(), g = got.contiguous();
  REPQUANT_CHECK(w.numel() == g.numel());
  const float *a = w.data_ptr<float>(), *b = g.data_ptr<float>();
  // Lanes: the compiler may not reorder a sum of doubles by itself.
  constexpr int64_t lanes = 8;
  double error[lanes] = {}, energy[lanes] = {}, square[lanes] = {}, cross[lanes] = {};
  for (int64_t i = 0; i < w.numel(); i += lanes) {
    const int64_t count = std::min(lanes, w.numel() - i);
    for (int64_t k = 0; k < count; ++k) {
      const double x = a[i + k], y = b[i + k];
      error[k] += (x - y) * (x - y);
      energy[k] += x * x;
      square[k] += y * y;
      cross[k] += x * y;
    }
  }
  ErrorSums sums;
  for (int64_t k = 0; k < lanes; ++k) {
    sums.error += error[k];
    sums.energy += energy[k];
    sums.got += square[k];
    sums.cross += cross[k];
  }
  sums.count = static_cast<double>(w.numel());
  return sums;
}

bool is_layer(OpKind op) {
  return op == OpKind::kLinear || op == OpKind::kConv || op == OpKind::kMultiHeadAttention;
}

void measure_layers(Workspace& ws, const std::string& stage, int64_t samples) {
  if (!can_measure(ws, samples)) return;
  if (!untouched(ws)) {
    compare(ws, stage, samples, ws.weights, quantize::plan_hook(ws.plan));
    return;
  }
  for (const NodeId id : ws.graph.order()) {
    const Node& node = ws.graph.node(id);
    if (is_layer(node.op)) add_rows(ws.report, stage, node.name, {0, 1, 1, 1, 1});
  }
}

void measure_plain_rounding(Workspace& ws, const std::string& stage, int64_t samples) {
  if (!can_measure(ws, samples)) return;
  WeightMap weights = ws.reference;
  for (const auto& [site, target] : ws.targets) {
    if (target.role != Role::kWeight || !ws.has_constant(site.node, site.input)) continue;
    const ValueId id = ws.graph.node(site.node).inputs.at(static_cast<size_t>(site.input));
    const at::Tensor& weight = ws.reference.at(id);
    weights[id] = quantize::quantize_rows(
        weight,
        weight_range(weight, {Role::kWeight, target.bits, "auto", false}, "minmax", *ws.pool));
  }
  compare(ws, stage, samples, weights, [&](const Site& site, const at::Tensor& tensor) {
    const SiteTarget* target = ws.target(site);
    if (target == nullptr || target->role == Role::kWeight) return tensor;
    return quantize::fake_quantize(tensor, min_max(tensor, target->bits),
                                   site.input == kProbabilities);
  });
}

}  // namespace repquant::reconstruct
