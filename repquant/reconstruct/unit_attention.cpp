#include <algorithm>
#include <cmath>

#include "repquant/core/format/log.h"
#include "repquant/quantize/fake_quantize.h"
#include "repquant/quantize/range_search.h"
#include "repquant/reconstruct/unit.h"
#include "repquant/reparameterize/fold.h"
#include "repquant/reparameterize/rotate.h"

namespace repquant::reconstruct {
namespace {

const std::vector<double>& softmax_quantiles() {
  static const std::vector<double> set{0.97,   0.98,    0.99,    0.995,    0.999,    0.9995, 0.9997,
                                       0.9999, 0.99995, 0.99999, 0.999995, 0.999999, 1.0};
  return set;
}

Log log_format(const SiteTarget& target) {
  const double base = target.format == "log2" ? 1.0 : 2.0;
  if (target.compat) return {base, 0.0, 0, true};
  return {base, 0.0, target.bits <= 4 && base == 2.0 ? 8 : 16, false};
}

// log-sqrt2 first; where the recipe leaves the format open and the range is searched by output
// error, at up to 4 bits coarser bases too: few codes of base sqrt2 end above many probabilities.
std::vector<Log> log_formats(const SiteTarget& target, bool search) {
  std::vector<Log> formats{log_format(target)};
  if (!search || target.format != "auto" || target.compat || target.bits > 4) return formats;
  for (const int k : {22, 26, 31, 37}) formats.push_back({37.0 / k, 0.0, 8, false});
  return formats;
}

// Codes with a scale a head are symmetric: the integer product has one zero point for all heads.
QuantSpec operand_spec(const SiteTarget& target, int64_t heads) {
  if (target.granularity == "head") {
    return {target.bits, Uniform{true, false, true, false}, PerHead{static_cast<int>(heads)},
            Range{}};
  }
  return {target.bits, Uniform{false, true, !target.compat, false}, PerTensor{}, Range{}};
}

// [.., T, H*d] -> [.., H, T, d]
at::Tensor heads_first(const at::Tensor& x, int64_t heads) {
  return x.unflatten(-1, {heads, -1}).transpose(-3, -2).contiguous();
}

}  // namespace

void Unit::attention(NodeId id) {
  if (options_.centre_values) centre_values(id);
  const Attrs& attrs = ws_.graph.node(id).attrs;
  const int64_t heads = attrs.integer("heads", 1), kv_heads = attrs.integer("kv_heads", heads);
  for (const int input : {0, 1, 2}) {
    const SiteTarget* target = ws_.target({id, input});
    if (target == nullptr) continue;
    const QuantSpec spec = operand_spec(*target, input == 0 ? heads : kv_heads);
    set({id, input}, Role::kActivation, uniform_range({id, input}, spec));
  }
  const SiteTarget* target = ws_.target({id, kProbabilities});
  if (target != nullptr)
    set({id, kProbabilities}, Role::kActivation, probabilities_range(id, *target));
}

// b_v -= m, b_o += W_o m with m = E[P v]: free, since rows of P sum to 1.
void Unit::centre_values(NodeId id) {
  const auto rows = reparameterize::operand_rows(ws_, id, 2);
  const auto projection = reparameterize::attention_projection(ws_, id);
  const Node& node = ws_.graph.node(id);
  const int64_t heads = node.attrs.integer("heads", 1);
  if (!rows || !projection || node.attrs.integer("kv_heads", heads) != heads) return;
  std::vector<at::Tensor> sums(static_cast<size_t>(walk_.chunks()));
  std::vector<int64_t> counts(sums.size());
  walk_.visit({id, observe::kNodeOutput}, [&](int64_t chunk, const at::Tensor& out) {
    const at::Tensor flat = out.reshape({-1, out.size(-1)});
    sums[static_cast<size_t>(chunk)] = flat.sum(0, false, at::kDouble);
    counts[static_cast<size_t>(chunk)] = flat.size(0);
  });
  at::Tensor mean = sums[0];
  int64_t count = counts[0];
  for (size_t i = 1; i < sums.size(); ++i) {
    mean = mean + sums[i];
    count += counts[i];
  }
  mean = (mean / static_cast<double>(count)).to(at::kFloat);
  at::Tensor bias = ws_.constant(rows->linear, 2).clone();
  bias.slice(0, rows->begin, rows->end).sub_(mean);
  ws_.set_constant(rows->linear, 2, bias);
  const at::Tensor w = ws_.constant(*projection, 1);
  ws_.set_constant(*projection, 2, ws_.constant(*projection, 2) + at::mv(w, mean));
  walk_.shift_value(ws_.graph.node(id).inputs[2], -mean);
}

QParams Unit::probabilities_range(NodeId id, const SiteTarget& target) {
  const Site site{id, kProbabilities};
  const QuantSpec row_codes{8, Uniform{}, PerTensor{}, Range{}};
  if (target.bits == 8 && (target.format == "auto" || target.format == "uniform") &&
      !target.compat) {
    return {row_codes, {1.0f / 255.0f}, {0}, {}};
  }
  const QuantSpec uniform{target.bits, Uniform{}, PerTensor{}, Range{}};
  if (target.format == "uniform")
    return quantize::percentile_range(walk_, site, uniform, quantize::percentiles());
  const QuantSpec log{target.bits, log_format(target), PerTensor{}, Range{}};
  const bool choose = target.format == "auto" && target.bits >= 6 && !target.compat;
  if (options_.softmax_range != "output" && !choose) {
    return quantize::log_percentile_range(walk_, site, log, quantize::percentiles());
  }
  // By the error of P V on the first chunk.
  const std::vector<float> quantiles =
      observe::exact_quantiles(quantize::site_pass(walk_, site), 1, softmax_quantiles());
  const int64_t heads = ws_.graph.node(id).attrs.integer("heads", 1);
  const at::Tensor values = walk_.value(ws_.graph.node(id).inputs.at(2), 0);
  const Assignment* v_site = ws_.plan.find({id, 2});
  const at::Tensor v =
      heads_first(v_site != nullptr ? quantize::fake_quantize(values, v_site->params) : values,
                  ws_.graph.node(id).attrs.integer("kv_heads", heads));
  at::Tensor p;
  walk_.visit(site, [&](int64_t chunk, const at::Tensor& tensor) {
    if (chunk == 0) p = tensor.contiguous();
  });
  if (v.size(-3) != p.size(-3))
    return quantize::log_percentile_range(walk_, site, log, quantize::percentiles());
  std::vector<QParams> candidates;
  for (const Log& format : log_formats(target, options_.softmax_range == "output")) {
    const QuantSpec spec{target.bits, format, PerTensor{}, Range{}};
    for (const float quantile : quantiles)
      candidates.push_back({spec, {std::max(quantile, 1e-8f)}, {}, {}});
  }
  if (choose) {
    candidates.push_back(
        quantize::percentile_range(walk_, site, uniform, quantize::wide_percentiles()));
  }
  QParams best;
  double best_error = INFINITY;
  for (const QParams& candidate : candidates) {
    const at::Tensor e = at::matmul(quantize::fake_quantize(p, candidate, true) - p, v);
    const double error = e.square().sum(at::kDouble).item<double>();
    if (error < best_error) {
      best_error = error;
      best = candidate;
    }
  }
  return best;
}

// A code of 8 bits before GELU turns the activation into a table; the plan keeps it only where a
// later stage can use it: one uniform per-tensor site.
void Unit::activation(NodeId id) {
  if (options_.gelu_table == "off") return;
  const ValueId in = ws_.graph.node(id).inputs.at(0);
  const NodeId producer = ws_.graph.value(in).producer;
  const bool alone = producer >= 0 && ws_.graph.node(producer).op == OpKind::kLinear &&
                     ws_.graph.consumers(in).size() == 1;
  const std::vector<NodeId> readers = ws_.graph.consumers(ws_.graph.node(id).outputs.at(0));
  if (!alone || readers.size() != 1) return;
  const SiteTarget* reader = ws_.target({readers[0], 0});
  if (reader == nullptr) return;
  // Next to a product of 8-bit operands one more code of 8 bits costs nothing measurable, and next
  // to codes 16 times as coarse next to nothing.
  const SiteTarget* weight = ws_.target({readers[0], 1});
  const bool products = reader->bits >= 8 && weight != nullptr && weight->bits >= 8;
  if (options_.gelu_table == "eight_bit" && !products) return;
  if (options_.gelu_table == "safe" && !products && reader->bits > 4) return;
  const QuantSpec spec{8, Uniform{}, PerTensor{}, Range{}};
  const QParams params = quantize::mse_range(walk_, {id, 0}, spec);
  if (options_.gelu_table != "auto") {
    set({id, 0}, Role::kActivation, params);
  } else {
    tables_[id] = params;
  }
}

void fold_published(Workspace& ws, const SequentialOptions& options) {
  for (const NodeId id : ws.graph.order()) {
    const OpKind op = ws.graph.node(id).op;
    if (op != OpKind::kLayerNorm && op != OpKind::kRmsNorm) continue;
    const auto site = reparameterize::norm_consumers(ws, id, nullptr);
    if (!site) continue;
    const Assignment* found = ws.plan.find({site->linears[0], 0});
    if (found == nullptr || found->params.lower.empty() || found->params.scale.size() < 2) continue;
    QParams channels = found->params;
    double zero = 0;  // the mean of the rounded zero points, not rounded itself
    for (size_t c = 0; c < channels.scale.size(); ++c) {
      const double z = std::nearbyint(-static_cast<double>(channels.lower[c]) / channels.scale[c]);
      channels.lower[c] = static_cast<float>(-z * channels.scale[c]);
      zero += z / static_cast<double>(channels.scale.size());
    }
    for (const NodeId linear : site->linears) {
      for (const int input : {1, 2}) {
        const ValueId constant = ws.graph.node(linear).inputs[static_cast<size_t>(input)];
        ws.set_constant(linear, input, ws.reference.at(constant));
      }
    }
    const QParams folded = reparameterize::fold_norm(ws, *site, channels, zero, true);
    for (const NodeId linear : site->linears) {
      ws.plan.set({linear, 0}, {Role::kActivation, folded, ws.pass});
      const SiteTarget* target = ws.target({linear, 1});
      if (target == nullptr) continue;
      const at::Tensor weight = ws.constant(linear, 1);
      const QParams params = weight_range(weight, *target, options.weight_range, *ws.pool);
      ws.set_constant(linear, 1, quantize::quantize_rows(weight, params));
      ws.plan.set({linear, 1}, {Role::kWeight, params, ws.pass});
    }
  }
}

}  // namespace repquant::reconstruct
