#include "repquant/reparameterize/scaled_channels.h"

#include <algorithm>

namespace repquant::reparameterize {
namespace {

constexpr double kMost = 16;  // factor of a channel that shares rows of W with others

// The input that is a constant beside data.
std::optional<Site> constant_operand(const Workspace& ws, NodeId id) {
  const Node& node = ws.graph.node(id);
  if ((node.op != OpKind::kMul && node.op != OpKind::kAdd) || node.inputs.size() != 2)
    return std::nullopt;
  const int input = ws.has_constant(id, 0) ? 0 : 1;
  if (!ws.has_constant(id, input) || ws.has_constant(id, 1 - input)) return std::nullopt;
  if (ws.constant(id, input).scalar_type() != at::kFloat) return std::nullopt;
  return Site{id, input};
}

// Channels that a layer reads in `value`, 0 for what factors cannot move into.
int64_t channels_read(const Workspace& ws, NodeId id, ValueId value, ScaledChannels& site) {
  const Node& node = ws.graph.node(id);
  const bool conv = node.op == OpKind::kConv;
  if ((!conv && node.op != OpKind::kLinear) || node.inputs[0] != value) return 0;
  if (ws.target({id, 0}) == nullptr || !ws.has_constant(id, 1)) return 0;
  const at::Tensor& w = ws.constant(id, 1);
  const int64_t groups = conv ? node.attrs.integer("group", 1) : 1;
  if (!conv) {
    site.depthwise = false;
    return w.size(1);
  }
  return w.size(0) == groups && w.size(1) == 1 ? groups : 0;
}

std::vector<int64_t> channel_shape(const Workspace& ws, const ScaledChannels& site) {
  std::vector<int64_t> shape{site.channels};
  if (site.image) shape.resize(static_cast<size_t>(ws.constant(site.layers[0], 1).dim()) - 1, 1);
  return shape;
}

bool is_by_channel(const Workspace& ws, const ScaledChannels& site, const Site& at) {
  const at::Tensor& constant = ws.constant(at.node, at.input);
  const std::vector<int64_t> shape = channel_shape(ws, site);
  if (constant.dim() > static_cast<int64_t>(shape.size()) + 1) return false;
  if (constant.numel() == 1) return true;
  const auto sizes = constant.sizes();
  return constant.numel() == site.channels && sizes.size() >= shape.size() &&
         std::equal(shape.rbegin(), shape.rend(), sizes.rbegin());
}

// A constant of one a channel leaves the shape of what the node puts out.
bool has_channels(const Workspace& ws, const ScaledChannels& site, const Site& at) {
  const auto& shape = ws.graph.value(ws.graph.node(at.node).outputs.at(0)).shape;
  if (!shape || shape->size() < 2) return false;
  const Dim& channels = site.image ? (*shape)[1] : shape->back();
  return channels.known() && channels.size == site.channels;
}

}  // namespace

std::optional<ScaledChannels> scaled_channels(const Workspace& ws, NodeId mul) {
  const auto product = constant_operand(ws, mul);
  if (!product || ws.graph.node(mul).op != OpKind::kMul) return std::nullopt;
  ScaledChannels site{{*product}, {}, 0, false, true};
  ValueId out = ws.graph.node(mul).outputs.at(0);
  const std::vector<NodeId> readers = ws.graph.consumers(out);
  if (readers.size() == 1 && !ws.graph.is_output(out)) {
    const auto sum = constant_operand(ws, readers[0]);
    if (sum && ws.graph.node(readers[0]).op == OpKind::kAdd) {
      site.constants.push_back(*sum);
      out = ws.graph.node(readers[0]).outputs.at(0);
    }
  }
  site.layers = ws.graph.consumers(out);
  if (site.layers.empty() || ws.graph.is_output(out)) return std::nullopt;
  site.image = ws.graph.node(site.layers[0]).op == OpKind::kConv;
  for (const NodeId layer : site.layers) {
    const int64_t channels = channels_read(ws, layer, out, site);
    const bool image = ws.graph.node(layer).op == OpKind::kConv;
    if (channels == 0 || image != site.image || (site.channels != 0 && channels != site.channels))
      return std::nullopt;
    site.channels = channels;
  }
  for (const Site& at : site.constants) {
    if (!is_by_channel(ws, site, at) || !has_channels(ws, site, at)) return std::nullopt;
  }
  return site;
}

void own_constants(Workspace& ws) {
  for (const NodeId id : ws.graph.order()) {
    const auto site = scaled_channels(ws, id);
    if (!site || site->image) continue;
    for (const Site& at : site->constants)
      ws.set_constant(at.node, at.input, ws.constant(at.node, at.input).clone());
  }
}

at::Tensor channel_sizes(const Workspace& ws, observe::BlockWalk& walk,
                         const ScaledChannels& site) {
  std::vector<at::Tensor> parts(static_cast<size_t>(walk.chunks()));
  walk.visit({site.constants[0].node, observe::kNodeOutput}, [&](int64_t chunk,
                                                                 const at::Tensor& y) {
    at::Tensor shifted = y;
    if (site.constants.size() > 1)
      shifted = y + ws.constant(site.constants[1].node, site.constants[1].input);
    const at::Tensor channels = site.image ? shifted.transpose(0, 1).reshape({shifted.size(1), -1})
                                           : shifted.reshape({-1, shifted.size(-1)}).t();
    parts[static_cast<size_t>(chunk)] = channels.abs().amax(1).to(at::kDouble);
  });
  at::Tensor sizes = parts[0];
  for (const at::Tensor& part : parts) sizes = at::maximum(sizes, part);
  return sizes;
}

void equalise_channels(Workspace& ws, const ScaledChannels& site, const at::Tensor& sizes) {
  at::Tensor factors = sizes.clamp_min(1e-3 * sizes.max().item<double>()).clamp_min(1e-30);
  if (!site.depthwise) {
    at::Tensor share = at::zeros_like(sizes);
    for (const NodeId layer : site.layers) {
      const at::Tensor& w = ws.constant(layer, 1);
      const at::Tensor rows = w.abs().to(at::kDouble).reshape({w.size(0), w.size(1), -1});
      share = at::maximum(share, (rows / rows.amax({1, 2}, true).clamp_min(1e-300)).amax({0, 2}));
    }
    factors = at::sqrt(factors / share.clamp_min(1e-2));
  }
  factors = factors / factors.log().mean().exp();
  if (!site.depthwise) factors = factors.clamp(1 / kMost, kMost);
  for (const Site& at : site.constants) {
    const std::vector<int64_t> shape = channel_shape(ws, site);
    const at::Tensor now = ws.constant(at.node, at.input).to(at::kDouble).reshape({-1});
    ws.set_constant(at.node, at.input, (now / factors).reshape(shape).to(at::kFloat).contiguous());
  }
  for (const NodeId layer : site.layers) {
    const at::Tensor w = ws.constant(layer, 1).to(at::kDouble);
    std::vector<int64_t> shape(static_cast<size_t>(w.dim()), 1);
    shape[site.depthwise ? 0 : 1] = site.channels;
    ws.set_constant(layer, 1, (w * factors.reshape(shape)).to(at::kFloat).contiguous());
  }
}

}  // namespace repquant::reparameterize
