#include "repquant/graph/fold_batch_norm.h"

#include <algorithm>
#include <cmath>

namespace repquant {
namespace {

struct Affine {
  std::vector<double> scale, shift;   // a channel
  int64_t channels() const { return static_cast<int64_t>(scale.size()); }
};

const Tensor* float_constant(const Graph& graph, const Node& node, size_t input) {
  if (input >= node.inputs.size() || !graph.is_constant(node.inputs[input])) return nullptr;
  const Tensor& tensor = *graph.value(node.inputs[input]).constant;
  return tensor.dtype() == DType::kF32 ? &tensor : nullptr;
}

[[noreturn]] void contradict(const Node& node, const std::string& what) {
  throw Error(ErrorCode::kCorruptFile,
              "fold batch norm: node \"" + node.name + "\": expected " + what);
}

std::optional<Affine> affine_of(const Graph& graph, const Node& node) {
  const Tensor* parts[4];
  for (size_t i = 0; i < 4; ++i) {
    parts[i] = float_constant(graph, node, i + 1);
    if (!parts[i]) return std::nullopt;
    if (parts[i]->size() != parts[0]->size()) contradict(node, "parameters of equal length");
  }
  const auto gamma = parts[0]->as<float>(), beta = parts[1]->as<float>();
  const auto mean = parts[2]->as<float>(), variance = parts[3]->as<float>();
  const double epsilon = static_cast<double>(node.attrs.real("epsilon", 1e-5f));
  Affine affine;
  for (size_t c = 0; c < gamma.size(); ++c) {
    const double spread = static_cast<double>(variance[c]) + epsilon;
    if (!(spread > 0))
      contradict(node, "a positive variance, got " + std::to_string(variance[c]) + " in channel " +
                           std::to_string(c));
    const double scale = static_cast<double>(gamma[c]) / std::sqrt(spread);
    affine.scale.push_back(scale);
    affine.shift.push_back(static_cast<double>(beta[c]) - static_cast<double>(mean[c]) * scale);
  }
  return affine;
}

// Output channel of every weight element: rows, columns, or the grouped layout of a transposed
// convolution [in, out / groups, ...].
struct ChannelMap {
  int64_t inner;        // elements between two steps of the channel index
  int64_t channels;     // along that axis
  int64_t per_group;    // elements of one group of a conv_transpose; 0: no groups
};

std::optional<ChannelMap> channel_map(const Graph& graph, const Node& node, const Tensor& weight) {
  const Shape& shape = weight.shape();
  if (shape.size() < 2) return std::nullopt;
  const auto tail = [&](size_t from) {
    return element_count(std::span<const int64_t>(shape).subspan(from));
  };
  switch (node.op) {
    case OpKind::kConv: return ChannelMap{tail(1), shape[0], 0};
    case OpKind::kLinear: {
      // The channel of batch_norm is axis 1: the features of a matrix, and only of a matrix.
      const auto& out = graph.value(node.outputs[0]).shape;
      if (!out || out->size() != 2) return std::nullopt;
      return ChannelMap{tail(1), shape[0], 0};
    }
    case OpKind::kGemm:
      if (node.attrs.integer("transB", 0) != 0) return ChannelMap{tail(1), shape[0], 0};
      return ChannelMap{1, shape[1], 0};
    case OpKind::kConvTranspose: {
      const int64_t groups = node.attrs.integer("group", 1);
      if (groups <= 0 || shape[0] % groups != 0) return std::nullopt;
      return ChannelMap{tail(2), shape[1], weight.size() / groups};
    }
    default: return std::nullopt;
  }
}

Tensor scaled_weight(const Tensor& weight, const ChannelMap& map, const Affine& affine) {
  Tensor out = weight;
  auto w = out.as<float>();
  for (int64_t i = 0; i < weight.size(); ++i) {
    int64_t channel = i / map.inner % map.channels;
    if (map.per_group > 0) channel += i / map.per_group * map.channels;
    w[static_cast<size_t>(i)] = static_cast<float>(static_cast<double>(w[static_cast<size_t>(i)]) *
                                                   affine.scale[static_cast<size_t>(channel)]);
  }
  return out;
}

Tensor folded_bias(const Tensor* bias, double factor, const Affine& affine) {
  std::vector<float> out;
  for (int64_t c = 0; c < affine.channels(); ++c) {
    const auto i = static_cast<size_t>(c);
    const double old =
        !bias ? 0.0 : factor * static_cast<double>(bias->as<float>()[bias->size() == 1 ? 0 : i]);
    out.push_back(static_cast<float>(old * affine.scale[i] + affine.shift[i]));
  }
  return Tensor::of<float>({affine.channels()}, out);
}

// Keeps the value's name where nothing else reads it.
ValueId put_constant(Graph& graph, NodeId owner, ValueId old, const std::string& name,
                     Tensor tensor) {
  if (old != kNoValue && !graph.is_output(old) &&
      graph.consumers(old) == std::vector<NodeId>{owner}) {
    Value& value = graph.value(old);
    value.shape.emplace();
    for (const int64_t size : tensor.shape()) value.shape->push_back({size, {}});
    value.constant = std::move(tensor);
    return old;
  }
  return graph.add_constant(name, std::move(tensor));
}

std::string stem_of(const std::string& weight, const std::string& fallback) {
  constexpr std::string_view kEnd = ".weight";
  return weight.ends_with(kEnd) ? weight.substr(0, weight.size() - kEnd.size()) : fallback;
}

bool bias_fits(const Tensor* bias, int64_t channels) {
  if (!bias || bias->size() == 1) return true;
  return bias->size() == channels && !bias->shape().empty() && bias->shape().back() == channels;
}

bool fold_into_producer(Graph& graph, NodeId norm, const Affine& affine, size_t data = 0) {
  const ValueId input = graph.node(norm).inputs[data], output = graph.node(norm).outputs[0];
  const NodeId producer = graph.value(input).producer;
  if (producer < 0 || graph.is_output(input) || graph.consumers(input) != std::vector<NodeId>{norm})
    return false;
  Node& node = graph.node(producer);
  const Tensor* weight = float_constant(graph, node, 1);
  if (!weight) return false;
  const auto map = channel_map(graph, node, *weight);
  if (!map) return false;
  const int64_t groups = map->per_group > 0 ? node.attrs.integer("group", 1) : 1;
  if (map->channels * groups != affine.channels())
    contradict(graph.node(norm), "as many channels as its input has");
  const bool has_bias = node.inputs.size() > 2 && node.inputs[2] != kNoValue;
  const Tensor* bias = has_bias ? float_constant(graph, node, 2) : nullptr;
  if ((has_bias && !bias) || !bias_fits(bias, affine.channels())) return false;
  const double beta =
      node.op == OpKind::kGemm ? static_cast<double>(node.attrs.real("beta", 1)) : 1.0;
  Tensor new_bias = folded_bias(bias, beta, affine);
  Tensor new_weight = scaled_weight(*weight, *map, affine);
  const std::string stem = stem_of(graph.value(node.inputs[1]).name, node.name);
  node.inputs.resize(3, kNoValue);
  node.inputs[1] =
      put_constant(graph, producer, node.inputs[1], stem + ".weight", std::move(new_weight));
  node.inputs[2] =
      put_constant(graph, producer, node.inputs[2], stem + ".bias", std::move(new_bias));
  if (node.op == OpKind::kGemm) node.attrs.set("beta", 1.0f);
  graph.remove_node(norm);
  if (graph.is_output(output)) std::swap(graph.value(output).name, graph.value(input).name);
  graph.replace_uses(output, input);
  return true;
}

ValueId channel_constant(Graph& graph, const std::string& name, const std::vector<double>& values,
                         size_t rank) {
  std::vector<float> narrow(values.begin(), values.end());
  Tensor tensor = Tensor::of<float>({static_cast<int64_t>(narrow.size())}, narrow);
  Shape shape(rank - 1, 1);
  shape[0] = tensor.size();
  tensor.reshape(std::move(shape));
  return graph.add_constant(name, std::move(tensor));
}

std::string unused_name(const Graph& graph, std::string name) {
  const auto used = [&](NodeId id) { return graph.node(id).name == name; };
  while (std::any_of(graph.order().begin(), graph.order().end(), used)) name += "_";
  return name;
}

bool replace_by_arithmetic(Graph& graph, NodeId norm, const Affine& affine) {
  const Node old = graph.node(norm);
  const auto shape = graph.value(old.inputs[0]).shape;
  if (!shape || shape->size() < 2) return false;
  if ((*shape)[1].known() && (*shape)[1].size != affine.channels())
    contradict(old, "as many channels as its input has");
  Value scaled = graph.value(old.outputs[0]);
  scaled.name += "/scaled";
  scaled.producer = -1;
  Node multiply, shift;
  multiply.op = OpKind::kMul;
  multiply.name = unused_name(graph, old.name + "/scale");
  multiply.inputs = {old.inputs[0],
                     channel_constant(graph, multiply.name, affine.scale, shape->size())};
  multiply.outputs = {graph.add_value(std::move(scaled))};
  shift.op = OpKind::kAdd;
  shift.name = old.name;
  shift.inputs = {multiply.outputs[0],
                  channel_constant(graph, old.name + "/shift", affine.shift, shape->size())};
  shift.outputs = old.outputs;
  graph.add_node(std::move(multiply), norm);
  const auto& order = graph.order();
  const auto at = std::find(order.begin(), order.end(), norm) + 1;
  const NodeId next = at == order.end() ? -1 : *at;
  graph.remove_node(norm);
  graph.add_node(std::move(shift), next);
  return true;
}

}  // namespace

int fold_batch_norm(Graph& graph) {
  std::vector<NodeId> norms;
  for (const NodeId id : graph.order()) {
    if (graph.node(id).op == OpKind::kBatchNorm) norms.push_back(id);
  }
  int folded = 0;
  for (const NodeId id : norms) {
    const auto affine = affine_of(graph, graph.node(id));
    if (!affine) continue;
    folded += fold_into_producer(graph, id, *affine) || replace_by_arithmetic(graph, id, *affine);
  }
  if (folded > 0) graph.remove_dead();
  return folded;
}

namespace {

// y = a x + b a channel of the convolution behind which `node` stands, x at input `data`.
std::optional<Affine> affine_behind_conv(const Graph& graph, const Node& node, size_t data) {
  const ValueId x = node.inputs[data];
  const NodeId producer = x == kNoValue ? -1 : graph.value(x).producer;
  if (producer < 0 || graph.node(producer).op != OpKind::kConv) return std::nullopt;
  const Tensor* weight = float_constant(graph, graph.node(producer), 1);
  const Tensor* constant = float_constant(graph, node, 1 - data);
  if (!weight || weight->rank() < 3 || !constant || constant->rank() > weight->rank())
    return std::nullopt;
  const int64_t channels = weight->shape()[0], spatial = weight->rank() - 2;
  if (constant->size() != 1) {
    const Shape& shape = constant->shape();
    const int64_t axis = constant->rank() - spatial - 1;
    if (axis < 0 || constant->size() != channels || shape[static_cast<size_t>(axis)] != channels)
      return std::nullopt;
  }
  Affine affine;
  for (int64_t c = 0; c < channels; ++c) {
    const double v = constant->as<float>()[constant->size() == 1 ? 0 : static_cast<size_t>(c)];
    affine.scale.push_back(node.op == OpKind::kMul ? v : 1.0);
    affine.shift.push_back(node.op == OpKind::kMul ? 0.0 : v);
  }
  return affine;
}

}  // namespace

int fold_affine(Graph& graph) {
  int folded = 0;
  const std::vector<NodeId> order = graph.order();
  for (const NodeId id : order) {
    const Node& node = graph.node(id);
    if ((node.op != OpKind::kMul && node.op != OpKind::kAdd) || node.inputs.size() != 2) continue;
    const size_t data = graph.is_constant(node.inputs[0]) ? 1 : 0;
    const auto affine = affine_behind_conv(graph, node, data);
    if (affine) folded += fold_into_producer(graph, id, *affine, data);
  }
  if (folded > 0) graph.remove_dead();
  return folded;
}

}  // namespace repquant
