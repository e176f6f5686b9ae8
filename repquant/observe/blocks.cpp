#include "repquant/observe/blocks.h"

#include <algorithm>
#include <map>
#include <set>

namespace repquant::observe {
namespace {

struct Segment {
  std::vector<NodeId> nodes;
  ValueId output = kNoValue;
  bool attention = false;
  int layers = 0;         // convolutions and linears
  bool foldable = false;  // a norm, or a product with a constant
  bool residual = false;  // some value is read twice inside
};

bool is_foldable(const Graph& graph, const Node& node) {
  const auto constant = [&](ValueId id) { return id != kNoValue && graph.is_constant(id); };
  return node.op == OpKind::kLayerNorm || node.op == OpKind::kRmsNorm ||
         (node.op == OpKind::kMul && std::any_of(node.inputs.begin(), node.inputs.end(), constant));
}

// Nodes that depend on graph inputs; others (constant chains) never carry data over a cut.
std::set<ValueId> data_values(const Graph& graph) {
  std::set<ValueId> data(graph.inputs.begin(), graph.inputs.end());
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (std::any_of(node.inputs.begin(), node.inputs.end(),
                    [&](ValueId v) { return data.count(v) > 0; })) {
      data.insert(node.outputs.begin(), node.outputs.end());
    }
  }
  return data;
}

std::vector<Segment> segments(const Graph& graph) {
  const std::set<ValueId> data = data_values(graph);
  std::map<ValueId, int> remaining;  // reads to come
  for (const NodeId id : graph.order()) {
    for (const ValueId v : graph.node(id).inputs) {
      if (data.count(v) > 0) ++remaining[v];
    }
  }
  for (const ValueId v : graph.outputs) ++remaining[v];
  std::set<ValueId> live(graph.inputs.begin(), graph.inputs.end());
  std::vector<Segment> result;
  Segment current;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    current.nodes.push_back(id);
    current.layers += node.op == OpKind::kConv || node.op == OpKind::kLinear ? 1 : 0;
    current.foldable |= is_foldable(graph, node);
    current.attention |= node.op == OpKind::kMultiHeadAttention;
    for (const ValueId v : node.inputs) {
      if (data.count(v) == 0) continue;
      current.residual |= remaining[v] > 1;
      if (--remaining[v] == 0) live.erase(v);
    }
    for (const ValueId v : node.outputs) {
      if (data.count(v) > 0 && remaining[v] > 0) live.insert(v);
    }
    if (live.size() == 1 &&
        std::find(node.outputs.begin(), node.outputs.end(), *live.begin()) != node.outputs.end()) {
      current.output = *live.begin();
      result.push_back(std::move(current));
      current = {};
    }
  }
  if (!current.nodes.empty()) {
    if (result.empty()) result.emplace_back();
    result.back().nodes.insert(result.back().nodes.end(), current.nodes.begin(),
                               current.nodes.end());
    result.back().output = graph.outputs.empty() ? kNoValue : graph.outputs[0];
  }
  return result;
}

void append(Block& block, const Segment& segment) {
  block.nodes.insert(block.nodes.end(), segment.nodes.begin(), segment.nodes.end());
  block.output = segment.output;
}

std::string block_name(const Graph& graph, const Block& block, int index) {
  for (const NodeId id : block.nodes) {
    const Node& node = graph.node(id);
    if (node.op != OpKind::kMultiHeadAttention) continue;
    const size_t dot = node.name.rfind('.');
    if (dot != std::string::npos) return node.name.substr(0, dot);
  }
  return "blocks." + std::to_string(index);
}

// A fold rewrites norms and products for the layer behind them: those at the end of `from` go with it.
void move_foldable(std::vector<Segment>& from, std::vector<Segment>& to) {
  size_t begin = from.size();
  for (size_t i = from.size(); i > 0 && from[i - 1].layers == 0; --i) {
    if (from[i - 1].foldable) begin = i - 1;
  }
  to.assign(std::make_move_iterator(from.begin() + static_cast<ptrdiff_t>(begin)),
            std::make_move_iterator(from.end()));
  from.resize(begin);
}

// Without attention: what reads the input, pairs of layers with what follows them, the last layer.
std::vector<std::vector<Segment>> layer_pairs(const std::vector<Segment>& all) {
  size_t head = all.size();
  while (head > 0 && all[head - 1].layers == 0) --head;
  std::vector<std::vector<Segment>> result(1);
  int layers = 0, most = 1;
  for (size_t i = 0; i < all.size(); ++i) {
    const bool last = i + 1 == head && i > 0;
    if (all[i].layers > 0 && layers > 0 && (last || layers + all[i].layers > most)) {
      result.emplace_back();
      move_foldable(result[result.size() - 2], result.back());
      layers = 0;
      most = 2;
    }
    layers += all[i].layers;
    result.back().push_back(all[i]);
  }
  return result;
}

std::vector<Block> convolution_blocks(const Graph& graph, const std::vector<Segment>& all) {
  const std::vector<std::vector<Segment>> parts = layer_pairs(all);
  std::vector<Block> result;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    Block block{i == 0 ? "stem" : last ? "head" : "blocks." + std::to_string(i - 1), {}, kNoValue,
                kNoValue};
    for (const Segment& segment : parts[i]) append(block, segment);
    block.input = i == 0 ? graph.inputs.at(0) : result.back().output;
    result.push_back(std::move(block));
  }
  return result;
}

}  // namespace

std::vector<Block> blocks(const Graph& graph) {
  const std::vector<Segment> all = segments(graph);
  if (std::none_of(all.begin(), all.end(), [](const Segment& s) { return s.attention; }))
    return convolution_blocks(graph, all);
  // The head begins after the last segment that closes a residual branch.
  size_t first = 0;
  while (first < all.size() && !all[first].attention) ++first;
  size_t last = all.size();
  while (last > first && !all[last - 1].residual) --last;
  std::vector<Block> result;
  const auto open = [&](const char* name) { result.push_back({name, {}, kNoValue, kNoValue}); };
  for (size_t i = 0; i < all.size(); ++i) {
    const bool in_head = i >= last;
    if (i == 0 && first > 0) open("stem");
    if (i >= first && i < last && all[i].attention) open("");
    if (in_head && (i == last)) open("head");
    if (result.empty()) open("stem");
    append(result.back(), all[i]);
  }
  int index = 0;
  for (size_t i = 0; i < result.size(); ++i) {
    result[i].input = i == 0 ? graph.inputs.at(0) : result[i - 1].output;
    if (result[i].name.empty()) result[i].name = block_name(graph, result[i], index++);
  }
  return result;
}

}  // namespace repquant::observe
