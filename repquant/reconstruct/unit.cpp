#include "repquant/reconstruct/unit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "repquant/core/format/uniform.h"
#include "repquant/graph/reads_input.h"
#include "repquant/quantize/fake_quantize.h"
#include "repquant/quantize/range_search.h"
#include "repquant/reconstruct/clipping.h"
#include "repquant/reconstruct/layer_input.h"
#include "repquant/reparameterize/fold.h"
#include "repquant/reparameterize/rotate.h"
#include "repquant/reparameterize/scaled_channels.h"

namespace repquant::reconstruct {
namespace {

constexpr double kGeluMinimum = 0.16997124;  // -min GELU
constexpr double kSiluMinimum = 0.27846455;  // -min SiLU
constexpr int64_t kClipTokens = 4096;

bool same_targets(const Workspace& ws, const reparameterize::NormConsumers& site, int* bits) {
  for (const NodeId linear : site.linears) {
    const SiteTarget* target = ws.target({linear, 0});
    if (target == nullptr || target->format == "log" ||
        (linear != site.linears[0] && target->bits != *bits)) {
      return false;
    }
    *bits = target->bits;
  }
  return true;
}

int published_zero(const QParams& channels) {
  double sum = 0;
  for (size_t c = 0; c < channels.scale.size(); ++c) {
    sum += -static_cast<double>(channels.lower[c]) / channels.scale[c];
  }
  const double top = std::exp2(channels.spec.bits) - 1;
  return static_cast<int>(
      std::clamp(std::nearbyint(sum / static_cast<double>(channels.scale.size())), 0.0, top));
}

// The published per-channel grid: z = rne(-low/s). Constant channels get a range that includes
// zero, where the published code stops.
QParams published_channels(quantize::ChannelBounds bounds, int bits) {
  for (size_t c = 0; c < bounds.low.size(); ++c) {
    if (bounds.high[c] - bounds.low[c] > 1e-6f) continue;
    bounds.low[c] = std::min(bounds.low[c], 0.0f);
    bounds.high[c] = std::max(bounds.high[c], 0.0f);
  }
  QParams channels = reparameterize::guard_channels(quantize::channel_params(bounds, bits));
  for (size_t c = 0; c < channels.scale.size(); ++c) {
    channels.lower[c] = -std::nearbyint(-channels.lower[c] / channels.scale[c]) * channels.scale[c];
  }
  return channels;
}

// A clip with a bound a channel before the site: no range beyond the least of them, since the codes
// of all channels end at one bound.
QParams below_bounds(const Workspace& ws, const Site& site, QParams params) {
  NodeId before = ws.graph.value(ws.graph.node(site.node).inputs[0]).producer;
  if (before >= 0 && ws.graph.node(before).op == OpKind::kPad)
    before = ws.graph.value(ws.graph.node(before).inputs[0]).producer;
  const bool clipped = before >= 0 && ws.graph.node(before).op == OpKind::kClip &&
                       ws.has_constant(before, 2) && ws.constant(before, 2).numel() > 1;
  if (!clipped || params.scale.size() != 1 || params.zero_point.size() != 1) return params;
  const CodeRange range = code_range(params.spec.bits, std::get<Uniform>(params.spec.format));
  const auto value = [&](int32_t code) {
    return static_cast<double>(params.scale[0]) * (code - params.zero_point[0]);
  };
  const double least = ws.constant(before, 2).min().item<double>();
  if (value(range.hi) <= least) return params;
  const UniformParams found = uniform_from_range(value(range.lo), least, params.spec.bits, true);
  params.scale = {found.scale};
  params.zero_point = {found.zero};
  return params;
}

// [groups, K, K] of [groups, tokens, K].
at::Tensor gram(const at::Tensor& rows) {
  if (rows.size(0) == 1) return at::mm(rows[0].t(), rows[0]).unsqueeze(0);
  return at::bmm(rows.transpose(1, 2), rows);
}

}  // namespace

QParams weight_range(const at::Tensor& weight, const SiteTarget& target, const std::string& rule,
                     ThreadPool& pool) {
  const bool symmetric = target.format == "symmetric";
  const QuantSpec spec{target.bits, Uniform{symmetric, true, !target.compat, false}, PerChannel{0},
                       Range{}};
  if (rule == "minmax") return quantize::weight_min_max(weight, spec);
  if (rule == "mse") return quantize::weight_mse(weight, spec, pool);
  return quantize::weight_percentile(weight, spec, quantize::percentiles());
}

Unit::Unit(Workspace& ws, const SequentialOptions& options, const observe::Block& block,
           const observe::Chunks& inputs)
    : ws_(ws),
      options_(options),
      block_(block),
      walk_(ws, ws.weights, block, inputs, quantize::plan_hook(ws.plan)) {}

observe::Chunks Unit::calibrate(bool last) {
  for (const NodeId id : block_.nodes) {
    ws_.throw_if_stopped();
    switch (ws_.graph.node(id).op) {
      case OpKind::kLayerNorm:
      case OpKind::kRmsNorm:
        norm(id);
        break;
      case OpKind::kMul:
        product(id);
        break;
      case OpKind::kLinear:
      case OpKind::kConv:
        layer(id);
        break;
      case OpKind::kMultiHeadAttention:
        attention(id);
        break;
      case OpKind::kGelu:
      case OpKind::kSilu:
        activation(id);
        break;
      default:
        break;
    }
    walk_.step(id);
  }
  return last ? observe::Chunks{} : walk_.output();
}

void Unit::set(const Site& site, Role role, QParams params) {
  ws_.plan.set(site, {role, std::move(params), ws_.pass});
}

bool Unit::is_compared(ValueId id) const {
  return id == block_.output && (options_.blocks || options_.gelu_table == "auto");
}

double Unit::shift_behind(NodeId id) const {
  const NodeId producer = ws_.graph.value(ws_.graph.node(id).inputs.at(0)).producer;
  if (producer < 0) return 0;
  const OpKind op = ws_.graph.node(producer).op;
  return op == OpKind::kGelu ? kGeluMinimum : op == OpKind::kSilu ? kSiluMinimum : 0;
}

// ---- norms: per-channel bounds, clipping, fold --------------------------------------------------

void Unit::norm(NodeId id) {
  if (!options_.fold) return;
  std::string reason;
  auto site = reparameterize::norm_consumers(ws_, id, &reason);
  if (site && is_compared(ws_.graph.node(id).outputs.at(0))) {
    site.reset();
    reason = "its output ends a block that is compared with the float model";
  }
  int bits = 8;
  if (!site || !same_targets(ws_, *site, &bits)) {
    const bool split = reparameterize::twin_of(ws_.graph, id) >= 0;  // no layer reads it
    if (!site && !split && ws_.sink != nullptr)
      ws_.sink->warning("W004", ws_.graph.node(id).name, "not folded: " + reason,
                        "its readers share one range for all channels: low bits lose accuracy");
    return;
  }
  const Site output{id, observe::kNodeOutput};
  const int64_t channels = ws_.constant(id, 1).numel();
  using quantize::ChannelBounds;
  ChannelBounds bounds =
      options_.clip == "none"
          ? quantize::channel_min_max(walk_, output, channels)
          : quantize::channel_percentiles(walk_, output, channels, bits, quantize::percentiles());
  if (options_.clip != "none" && options_.clip != "percentile") {
    ClippingData data{sample_rows(output, kClipTokens), {}, {}, bits, 0};
    data.held_out = data.y.size(0) / 4;
    for (const NodeId linear : site->linears) data.weights.push_back(ws_.constant(linear, 1));
    const SiteTarget* weight = ws_.target({site->linears[0], 1});
    data.weight_spec =
        QuantSpec{weight != nullptr ? weight->bits : 8, Uniform{}, PerChannel{0}, Range{}};
    const double before =
        consumer_error(data, bounds, data.y.size(0) - data.held_out, data.y.size(0));
    if (options_.clip == "learned") {
      bounds = clip_learned(data, bounds, {options_.clip_steps, 1e-2, 1024, false, ws_.seed});
    } else {
      const ClipMode mode = options_.clip == "upper"       ? ClipMode::kUpper
                            : options_.clip == "symmetric" ? ClipMode::kSymmetric
                                                           : ClipMode::kGrid;
      bounds = clip_grid(data, bounds, mode);
    }
    const double after =
        consumer_error(data, bounds, data.y.size(0) - data.held_out, data.y.size(0));
    ws_.report.add({"clip", ws_.graph.node(id).name, "consumer_error_before", before});
    ws_.report.add({"clip", ws_.graph.node(id).name, "consumer_error_after", after});
  }
  if (options_
          .compat) {  // folded after the whole model, as published; integer zero points until then
    const QParams per_channel = published_channels(bounds, bits);
    for (const NodeId linear : site->linears) set({linear, 0}, Role::kActivation, per_channel);
    return;
  }
  const QParams guarded = reparameterize::guard_channels(quantize::channel_params(bounds, bits));
  const double zero = options_.middle_zero ? std::exp2(bits - 1) : published_zero(guarded);
  const QParams folded = reparameterize::fold_norm(ws_, *site, guarded, zero);
  for (const NodeId linear : site->linears) set({linear, 0}, Role::kActivation, folded);
}

void Unit::product(NodeId id) {
  if (!options_.fold || options_.compat) return;
  const auto site = reparameterize::scaled_channels(ws_, id);
  // In front of depthwise convolutions it lost answers of a text recogniser.
  if (!site || site->image) return;
  for (const Site& at : site->constants)
    if (is_compared(ws_.graph.node(at.node).outputs.at(0))) return;
  reparameterize::equalise_channels(ws_, *site, reparameterize::channel_sizes(ws_, walk_, *site));
}

// ---- linears and convolutions -------------------------------------------------------------------

void Unit::layer(NodeId id) {
  const SiteTarget* input = ws_.target({id, 0});
  const Assignment* found = ws_.plan.find({id, 0});
  if (input != nullptr && (found == nullptr || found->set_by != ws_.pass)) {
    set({id, 0}, Role::kActivation, input_range({id, 0}, *input));
  }
  if (ws_.target({id, 1}) != nullptr) round_weight(id);
}

QParams Unit::uniform_range(const Site& site, const QuantSpec& spec) {
  if (options_.activation_range == "minmax") return quantize::min_max_range(walk_, site, spec);
  if (options_.activation_range == "mse") return quantize::mse_range(walk_, site, spec);
  return quantize::percentile_range(walk_, site, spec, quantize::percentiles());
}

QParams Unit::input_range(const Site& site, const SiteTarget& target) {
  const QuantSpec spec{target.bits, Uniform{false, true, !target.compat, false}, PerTensor{},
                       Range{}};
  const Node& node = ws_.graph.node(site.node);
  if (node.op == OpKind::kConv && reads_graph_input(ws_.graph, node.inputs[0]))
    return quantize::min_max_range(walk_, site, spec);  // pixels have a range, not tails
  const double shift = shift_behind(site.node);
  const bool log = target.format == "log" || (target.format == "auto" && options_.log_gelu);
  if (log && shift > 0 && node.op == OpKind::kLinear) return shifted_log_range(site, target, shift);
  return below_bounds(ws_, site, uniform_range(site, spec));
}

// Base 37/k and range by the error of the layer's output on sampled rows; from 6 bits on a uniform
// quantizer is a candidate too, since 8-bit levels make a log code coarse there.
QParams Unit::shifted_log_range(const Site& site, const SiteTarget& target, double shift) {
  const at::Tensor x = sample_rows(site, 1024);
  const at::Tensor w = ws_.constant(site.node, 1);
  const auto error = [&](const QParams& params) {
    const at::Tensor e = at::mm(quantize::fake_quantize(x, params) - x, w.t());
    return e.square().sum(at::kDouble).item<double>();
  };
  const std::vector<double> p{0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999, 1.0};
  const std::vector<float> quantiles =
      observe::exact_quantiles(quantize::site_pass(walk_, site), 1, p);
  QParams best;
  double best_error = INFINITY;
  int best_k = 12;
  const auto attempt = [&](int k, float quantile) {
    const QuantSpec spec{target.bits, Log{37.0 / k, shift, 8, false}, PerTensor{}, Range{}};
    const QParams params{spec, {static_cast<float>(std::max(quantile + shift, 1e-6))}, {}, {}};
    const double now = error(params);
    if (now < best_error) {
      best_error = now;
      best = params;
      best_k = k;
    }
  };
  for (const int k : {2, 4, 6, 9, 12, 16, 22, 30, 40, 52}) {
    for (const size_t i : {size_t{2}, size_t{4}, size_t{6}}) attempt(k, quantiles[i]);
  }
  const int centre = best_k;
  for (const int k : {centre - 2, centre - 1, centre, centre + 1, centre + 2}) {
    if (k < 1) continue;
    for (const float quantile : quantiles) attempt(k, quantile);
  }
  if (target.bits >= 6) {
    const QParams uniform =
        uniform_range(site, {target.bits, Uniform{false, true, true, false}, PerTensor{}, Range{}});
    if (error(uniform) < best_error) return uniform;
  }
  return best;
}

at::Tensor Unit::sample_rows(const Site& site, int64_t count) {
  const int64_t each = std::max<int64_t>(1, count / walk_.chunks());
  observe::Chunks parts(static_cast<size_t>(walk_.chunks()));
  walk_.visit(site, [&](int64_t chunk, const at::Tensor& tensor) {
    const at::Tensor rows = tensor.reshape({-1, tensor.size(-1)});
    const int64_t n = rows.size(0), take = std::min(each, n);
    at::Tensor index = at::empty({take}, at::kLong);
    for (int64_t i = 0; i < take; ++i) index.data_ptr<int64_t>()[i] = i * n / take;
    parts[static_cast<size_t>(chunk)] = rows.index_select(0, index);
  });
  return at::cat(parts);
}

Moments Unit::input_moments(NodeId id) {
  const Assignment* input = ws_.plan.find({id, 0});
  std::vector<Moments> parts(static_cast<size_t>(walk_.chunks()));
  walk_.visit({id, 0}, [&](int64_t chunk, const at::Tensor& tensor) {
    const at::Tensor x = input != nullptr ? quantize::fake_quantize(tensor, input->params) : tensor;
    const at::Tensor rows = layer_input(ws_, id, x);
    Moments& part = parts[static_cast<size_t>(chunk)];
    if (options_.gptq) part.gram = gram(rows).to(at::kDouble);
    part.mean = rows.sum(1, false, at::kDouble);
    part.count = rows.size(1);
  });
  Moments total = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    if (options_.gptq) total.gram += parts[i].gram;
    total.mean += parts[i].mean;
    total.count += parts[i].count;
  }
  total.mean /= static_cast<double>(total.count);
  return total;
}

void Unit::round_weight(NodeId id) {
  const SiteTarget& target = *ws_.target({id, 1});
  if (options_.ridge && ws_.graph.node(id).op == OpKind::kLinear) apply_ridge(id);
  const at::Tensor weight = ws_.constant(id, 1);
  const QParams params = weight_range(weight, target, options_.weight_range, *ws_.pool);
  Moments moments;
  if (options_.gptq || options_.bias_correction) moments = input_moments(id);
  const int64_t width = weight.numel() / weight.size(0);
  at::Tensor rounded;
  // Fewer tokens than inputs say too little about the output: such a layer (the head) is rounded.
  if (options_.gptq && moments.count >= 2 * width) {
    rounded = gptq(weight, moments.gram, params, options_.act_order, options_.damping, *ws_.pool);
  } else {
    rounded = quantize::quantize_rows(weight, params);
  }
  if (options_.bias_correction && ws_.has_constant(id, 2)) {
    ws_.set_constant(id, 2, ws_.constant(id, 2) + bias_correction(weight, rounded, moments.mean));
  }
  latent_[id] = weight;
  ws_.set_constant(id, 1, rounded);
  set({id, 1}, Role::kWeight, params);
}

// T0: the ridge solution with the regularisation of least held-out error (the last chunk), kept
// only when it lowers that error.
void Unit::apply_ridge(NodeId id) {
  const Assignment* input = ws_.plan.find({id, 0});
  if (input == nullptr || walk_.chunks() < 2) return;
  const at::Tensor w = ws_.constant(id, 1);
  struct Part {
    at::Tensor gram, cross, x, residual;
  };
  std::vector<Part> parts(static_cast<size_t>(walk_.chunks()));
  walk_.visit({id, 0}, [&](int64_t chunk, const at::Tensor& tensor) {
    const at::Tensor rows = layer_input(ws_, id, tensor)[0];
    const at::Tensor x =
        layer_input(ws_, id, quantize::fake_quantize(tensor, input->params))[0];
    const at::Tensor residual = at::mm(rows - x, w.t());
    const at::Tensor ones = at::cat({x, at::ones({x.size(0), 1})}, 1);
    Part& part = parts[static_cast<size_t>(chunk)];
    part.gram = at::mm(ones.t(), ones).to(at::kDouble);
    part.cross = at::mm(ones.t(), residual).to(at::kDouble);
    if (chunk + 1 == walk_.chunks()) {
      part.x = x;
      part.residual = residual;
    }
  });
  at::Tensor gram = parts[0].gram, cross = parts[0].cross;
  for (size_t i = 1; i + 1 < parts.size(); ++i) {
    gram = gram + parts[i].gram;
    cross = cross + parts[i].cross;
  }
  const Part& judge = parts.back();
  double best = judge.residual.square().sum(at::kDouble).item<double>();
  const double before = best;
  Ridge chosen;
  for (const double rho : {1e-3, 1e-2, 1e-1, 1.0}) {
    Ridge found = ridge(gram, cross, rho);
    const at::Tensor left = judge.residual - at::mm(judge.x, found.weight.t()) - found.bias;
    const double error = left.square().sum(at::kDouble).item<double>();
    if (error < best) {
      best = error;
      chosen = std::move(found);
    }
  }
  ws_.report.add(
      {"ridge", ws_.graph.node(id).name, "held_out_error_ratio", before > 0 ? best / before : 1.0});
  if (!chosen.weight.defined()) return;
  ws_.set_constant(id, 1, w + chosen.weight);
  ws_.set_constant(id, 2, ws_.constant(id, 2) + chosen.bias);
}

}  // namespace repquant::reconstruct
