#include "repquant/reparameterize/channel_pairs.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

namespace repquant::reparameterize {
namespace {

bool is_layer(OpKind op) { return op == OpKind::kConv || op == OpKind::kLinear; }

std::optional<float> scalar(const Workspace& ws, const Node& node, size_t input) {
  const bool constant = node.inputs.size() > input && node.inputs[input] != kNoValue &&
                        ws.graph.is_constant(node.inputs[input]);
  if (!constant) return std::nullopt;
  const at::Tensor& tensor = ws.constant(node.inputs[input]);
  if (tensor.numel() != 1 || tensor.scalar_type() != at::kFloat) return std::nullopt;
  return tensor.item<float>();
}

// Pads of images, zeros, none of batch or channels.
bool pads_positions(const Workspace& ws, const Node& node) {
  if (node.attrs.text("mode", "constant") != "constant") return false;
  const bool valued = node.inputs.size() > 2 && node.inputs[2] != kNoValue;
  if (valued && scalar(ws, node, 2) != 0.0f) return false;
  if (node.inputs.size() > 3 && node.inputs[3] != kNoValue) return false;
  if (node.inputs.size() < 2 || !ws.graph.is_constant(node.inputs[1])) return false;
  const at::Tensor pads = ws.constant(node.inputs[1]).to(at::kLong);
  const int64_t rank = pads.numel() / 2;
  if (rank < 3) return false;
  for (const int64_t i : {int64_t{0}, int64_t{1}, rank, rank + 1}) {
    if (pads[i].item<int64_t>() != 0) return false;
  }
  return true;
}

bool averages_positions(const Workspace& ws, const Node& node) {
  if (node.op == OpKind::kGlobalAveragePool) return true;
  std::vector<int64_t> axes = node.attrs.integers("axes");
  if (axes.empty() && node.inputs.size() > 1 && node.inputs[1] != kNoValue &&
      ws.graph.is_constant(node.inputs[1])) {
    const at::Tensor listed = ws.constant(node.inputs[1]).to(at::kLong).contiguous();
    axes.assign(listed.data_ptr<int64_t>(), listed.data_ptr<int64_t>() + listed.numel());
  }
  std::sort(axes.begin(), axes.end());
  return axes == std::vector<int64_t>{2, 3} || axes == std::vector<int64_t>{-2, -1};
}

// Rows of the weight are channels of the output; inputs are columns or, one a group, rows.
int64_t groups_of(const Node& node) {
  return node.op == OpKind::kConv ? node.attrs.integer("group", 1) : 1;
}

bool reads_channels(const Workspace& ws, ChannelPair& pair) {
  const Node& node = ws.graph.node(pair.second);
  if (!ws.has_constant(pair.second, 1)) return false;
  const at::Tensor& weight = ws.constant(pair.second, 1);
  const int64_t groups = groups_of(node);
  pair.depthwise = groups > 1;
  if (groups == 1) return weight.size(1) == pair.channels;
  return groups == pair.channels && weight.size(0) == groups && weight.size(1) == 1;
}

// What stands between; advances `pair`. "" when `node` lets factors through, else why not.
std::string pass_through(const Workspace& ws, NodeId id, bool conv, ChannelPair& pair) {
  const Node& node = ws.graph.node(id);
  switch (node.op) {
    case OpKind::kIdentity:
    case OpKind::kDropout:
    case OpKind::kRelu:
    case OpKind::kLeakyRelu:
      return "";
    case OpKind::kClip:
      if (!conv || pair.clip >= 0 || scalar(ws, node, 1) != 0.0f || !scalar(ws, node, 2)) break;
      if (pair.pooled) return "a clip behind a mean";
      pair.clip = id;
      return "";
    case OpKind::kPad:
      if (!conv || !pads_positions(ws, node)) break;
      pair.padded = true;
      return "";
    case OpKind::kMaxPool:
    case OpKind::kAveragePool:
      if (!conv || node.outputs.size() != 1) break;
      pair.pooled = true;
      return "";
    case OpKind::kGlobalAveragePool:
    case OpKind::kReduceMean:
      if (!conv || !averages_positions(ws, node)) break;
      pair.pooled = true;
      return "";
    case OpKind::kFlatten:
    case OpKind::kSqueeze:
    case OpKind::kReshape:
      if (pair.pooled) return "";  // [N, C, 1, 1] -> [N, C]; the sizes are compared at the end
      break;
    default:
      break;
  }
  return fmt::format("\"{}\" ({}) does not let factors through", node.name, name_of(node.op));
}

std::string find_second(const Workspace& ws, ChannelPair& pair) {
  const bool conv = ws.graph.node(pair.first).op == OpKind::kConv;
  ValueId value = ws.graph.node(pair.first).outputs[0];
  while (true) {
    const std::vector<NodeId> readers = ws.graph.consumers(value);
    if (readers.size() != 1 || ws.graph.is_output(value)) return "read by more than one";
    const Node& node = ws.graph.node(readers[0]);
    if (node.inputs[0] != value) return "not read as data";
    if (is_layer(node.op)) {
      pair.second = readers[0];
      const bool bounded = pair.clip >= 0;
      if (!reads_channels(ws, pair)) return "the next layer mixes channels another way";
      if (bounded && pair.pooled) return "a clip before a mean stays in float";
      if (bounded && ws.target({pair.second, 0}) == nullptr)
        return "a clip whose reader is not quantized";
      for (const int64_t pad : node.attrs.integers("pads")) pair.padded |= pad != 0;
      pair.padded |= node.attrs.text("auto_pad", "NOTSET") != "NOTSET";
      return "";
    }
    const std::string reason = pass_through(ws, readers[0], conv, pair);
    if (!reason.empty()) return reason;
    value = node.outputs[0];
  }
}

void set_both(Workspace& ws, NodeId node, int input, const at::Tensor& value,
              const at::Tensor& reference) {
  ws.set_constant(node, input, value);
  ws.reference[ws.graph.node(node).inputs[static_cast<size_t>(input)]] = reference;
}

}  // namespace

std::vector<ChannelPair> channel_pairs(const Workspace& ws, std::vector<std::string>* refused) {
  std::vector<ChannelPair> pairs;
  for (const NodeId id : ws.graph.order()) {
    const Node& node = ws.graph.node(id);
    if (!is_layer(node.op) || !ws.has_constant(id, 1) || !ws.has_constant(id, 2)) continue;
    ChannelPair pair;
    pair.first = id;
    pair.channels = ws.constant(id, 1).size(0);
    const std::string reason = find_second(ws, pair);
    if (reason.empty()) pairs.push_back(pair);
    else if (refused != nullptr) refused->push_back(node.name + ": " + reason);
  }
  return pairs;
}

void scale_channels(Workspace& ws, const ChannelPair& pair, const at::Tensor& factors) {
  const at::Tensor f = factors.to(at::kDouble);
  // The same for what is live and what is the reference.
  const auto both = [&](NodeId node, int input, const auto& change) {
    const ValueId value = ws.graph.node(node).inputs.at(static_cast<size_t>(input));
    const at::Tensor reference = change(ws.reference.at(value));
    set_both(ws, node, input, change(ws.constant(value)), reference);
  };
  const auto rows = [&](const at::Tensor& by) {
    return [by](const at::Tensor& w) {
      std::vector<int64_t> shape(static_cast<size_t>(w.dim()), 1);
      shape[0] = -1;
      return (w.to(at::kDouble) * by.reshape(shape)).to(at::kFloat).contiguous();
    };
  };
  both(pair.first, 1, rows(f));
  both(pair.first, 2, rows(f));
  if (pair.clip >= 0) {
    both(pair.clip, 2, [&](const at::Tensor& bound) {
      const at::Tensor scaled = bound.to(at::kDouble).reshape({-1}) * f;
      return scaled.reshape({-1, 1, 1}).to(at::kFloat).contiguous();
    });
  }
  if (pair.depthwise) return both(pair.second, 1, rows(1 / f));
  both(pair.second, 1, [&](const at::Tensor& w) {
    std::vector<int64_t> shape(static_cast<size_t>(w.dim()), 1);
    shape[1] = -1;
    return (w.to(at::kDouble) / f.reshape(shape)).to(at::kFloat).contiguous();
  });
}

}  // namespace repquant::reparameterize
