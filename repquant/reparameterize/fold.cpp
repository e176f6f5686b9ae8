#include "repquant/reparameterize/fold.h"

#include <cmath>
#include <numeric>

#include <fmt/format.h>

namespace repquant::reparameterize {
namespace {

constexpr const char* kTwin = ".folded";  // behind the norm's name

at::Tensor as_double(const std::vector<float>& values) {
  return at::tensor(std::vector<double>(values.begin(), values.end()), at::kDouble);
}

double mean_scale(const QParams& channels) {
  const double sum = std::accumulate(channels.scale.begin(), channels.scale.end(), 0.0);
  return static_cast<float>(sum / static_cast<double>(channels.scale.size()));
}

bool reads_as_linear(const Workspace& ws, NodeId reader, ValueId value) {
  const Node& node = ws.graph.node(reader);
  return node.op == OpKind::kLinear && node.inputs.at(0) == value && ws.has_constant(reader, 1) &&
         ws.has_constant(reader, 2);
}

#ifdef REPQUANT_DEBUG_CHECKS
// What the consumers compute from random normalised rows, in double.
std::vector<at::Tensor> probe(const Workspace& ws, const NormConsumers& site,
                              const at::Tensor& rows, std::vector<at::Tensor>* bounds) {
  const auto parameter = [&](NodeId node, int input) {
    return ws.constant(node, input).to(at::kDouble);
  };
  const at::Tensor gain = parameter(site.norm, 1).reshape({-1});
  const at::Tensor bias = parameter(site.norm, 2).reshape({-1});
  std::vector<at::Tensor> outputs;
  for (const NodeId linear : site.linears) {
    const at::Tensor w = parameter(linear, 1), b = parameter(linear, 2);
    outputs.push_back(at::mm(rows * gain + bias, w.t()) + b);
    if (bounds == nullptr) continue;
    // Gain, bias and W were rounded to f32 once each (2^-24): at most two roundings of every
    // product, one of the bias; 1 % covers the second order.
    const at::Tensor magnitude = at::mm((rows * gain).abs() + bias.abs(), w.abs().t());
    bounds->push_back((2 * magnitude + b.abs()) * (1.01 * std::exp2(-24)) + 1e-30);
  }
  return outputs;
}
#endif

}  // namespace

std::optional<NormConsumers> norm_consumers(const Workspace& ws, NodeId norm, std::string* reason) {
  const Node& node = ws.graph.node(norm);
  const auto refuse = [&](const std::string& why) {
    if (reason != nullptr) *reason = why;
    return std::nullopt;
  };
  if (!ws.has_constant(norm, 1) || !ws.has_constant(norm, 2)) {
    return refuse("norm without constant parameters");
  }
  NormConsumers site{norm, {}};
  const ValueId out = node.outputs.at(0);
  if (ws.graph.is_output(out)) return refuse("norm output is a graph output");
  for (const NodeId reader : ws.graph.consumers(out)) {
    const Node& consumer = ws.graph.node(reader);
    if (!reads_as_linear(ws, reader, out)) {
      return refuse(fmt::format("reader \"{}\" ({}) cannot be rewritten", consumer.name,
                                name_of(consumer.op)));
    }
    site.linears.push_back(reader);
  }
  if (site.linears.empty()) return refuse("norm output is not read");
  return site;
}

NodeId twin_of(const Graph& graph, NodeId norm) {
  const Node& node = graph.node(norm);
  for (const NodeId id : graph.consumers(node.inputs.at(0))) {
    if (graph.node(id).op == node.op && graph.node(id).name == node.name + kTwin) return id;
  }
  return -1;
}

int split_norms(Workspace& ws) {
  int count = 0;
  const std::vector<NodeId> order = ws.graph.order();
  for (const NodeId id : order) {
    const OpKind op = ws.graph.node(id).op;
    if (op != OpKind::kLayerNorm && op != OpKind::kRmsNorm) continue;
    if (!ws.has_constant(id, 1) || !ws.has_constant(id, 2)) continue;
    const ValueId out = ws.graph.node(id).outputs.at(0);
    std::vector<NodeId> linears;
    bool others = ws.graph.is_output(out);
    for (const NodeId reader : ws.graph.consumers(out)) {
      if (reads_as_linear(ws, reader, out) && ws.target({reader, 0}) != nullptr)
        linears.push_back(reader);
      else others = true;
    }
    if (linears.empty() || !others) continue;
    Node twin = ws.graph.node(id);
    twin.name += kTwin;
    Value value = ws.graph.value(out);
    value.name += kTwin;
    value.producer = -1;
    twin.outputs = {ws.graph.add_value(value)};
    const ValueId folded = twin.outputs[0];
    const NodeId added = ws.graph.add_node(std::move(twin), id);
    for (const int input : {1, 2})
      ws.set_constant(added, input, ws.constant(added, input).clone());
    for (const NodeId linear : linears) ws.graph.node(linear).inputs[0] = folded;
    ++count;
  }
  return count;
}

QParams guard_channels(QParams channels) {
  const double mean = mean_scale(channels);
  const double steps = std::exp2(channels.spec.bits) - 1.0;
  for (size_t c = 0; c < channels.scale.size(); ++c) {
    const double s = channels.scale[c];
    if (s > 1e3 * mean) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("reparameterize: channel {}: scale is {:.3g} times the mean", c, s / mean));
    }
    if (s >= 1e-3 * mean) continue;
    const double middle = channels.lower[c] + s * steps / 2;
    channels.scale[c] = static_cast<float>(1e-3 * mean);
    const double half = static_cast<double>(channels.scale[c]) * steps / 2;
    channels.lower[c] = static_cast<float>(middle - half);
  }
  return channels;
}

QParams fold_norm(Workspace& ws, const NormConsumers& site, const QParams& channels, double zero,
                  bool compat) {
  const double s = mean_scale(channels);
  const at::Tensor r = as_double(channels.scale) / s;
  const at::Tensor lower = as_double(channels.lower);
  const at::Tensor gain = ws.constant(site.norm, 1).to(at::kDouble);
  const at::Tensor bias = ws.constant(site.norm, 2).to(at::kDouble);
  const std::vector<int64_t> shape = ws.constant(site.norm, 1).sizes().vec();  // it is replaced
#ifdef REPQUANT_DEBUG_CHECKS
  const at::Tensor rows =
      at::linspace(-4, 4, 61, at::kDouble)
          .unsqueeze(1)
          .mul(at::linspace(1, 97, gain.numel(), at::kDouble).sin().unsqueeze(0));
  const std::vector<at::Tensor> before = probe(ws, site, rows, nullptr);
#endif
  ws.set_constant(site.norm, 1, (gain.reshape({-1}) / r).reshape(shape).to(at::kFloat));
  ws.set_constant(site.norm, 2,
                  ((bias.reshape({-1}) - lower) / r - s * zero).reshape(shape).to(at::kFloat));
  for (const NodeId linear : site.linears) {
    const at::Tensor w = ws.constant(linear, 1).to(at::kDouble);
    const at::Tensor folded = w * r;
    const at::Tensor b =
        ws.constant(linear, 2).to(at::kDouble) + at::mv(w, lower) + s * zero * folded.sum(1);
    ws.set_constant(linear, 1, folded.to(at::kFloat));
    ws.set_constant(linear, 2, b.to(at::kFloat));
  }
#ifdef REPQUANT_DEBUG_CHECKS
  std::vector<at::Tensor> bounds;
  const std::vector<at::Tensor> after = probe(ws, site, rows, &bounds);
  for (size_t i = 0; i < before.size(); ++i) {
    REPQUANT_CHECK(((after[i] - before[i]).abs() <= bounds[i]).all().item<bool>());
  }
#endif
  QuantSpec spec = channels.spec;
  spec.granularity = PerTensor{};
  if (compat) {
    spec.format = Uniform{false, true, false, true};
    return {spec, {static_cast<float>(s)}, {}, {static_cast<float>(-zero * s)}};
  }
  spec.format = Uniform{};
  return {spec, {static_cast<float>(s)}, {static_cast<int32_t>(zero)}, {}};
}

at::Tensor to_folded(const at::Tensor& y, const QParams& channels, double zero) {
  const double s = mean_scale(channels);
  const at::Tensor r = as_double(channels.scale) / s;
  return ((y.to(at::kDouble) - as_double(channels.lower)) / r - s * zero).to(at::kFloat);
}

}  // namespace repquant::reparameterize
