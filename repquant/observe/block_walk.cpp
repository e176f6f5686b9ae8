#include "repquant/observe/block_walk.h"

#include <algorithm>

namespace repquant::observe {
namespace {

// The place of the last node of the block that reads a value.
std::map<ValueId, size_t> last_reads(const Graph& graph, const Block& block) {
  std::map<ValueId, size_t> last;
  for (size_t i = 0; i < block.nodes.size(); ++i) {
    for (const ValueId input : graph.node(block.nodes[i]).inputs) last[input] = i;
  }
  return last;
}

}  // namespace

ValueMap block_values(const Workspace& ws, const Block& block, const Chunks& inputs,
                      int64_t chunk) {
  const at::Tensor& input = inputs[static_cast<size_t>(chunk)];
  if (block.input != ws.graph.inputs[0] || ws.graph.inputs.size() == 1)
    return {{block.input, input}};
  int64_t begin = 0;
  for (int64_t c = 0; c < chunk; ++c) begin += inputs[static_cast<size_t>(c)].size(0);
  ValueMap values = load_values(ws, begin, begin + input.size(0));
  values[block.input] = input;
  return values;
}

BlockWalk::BlockWalk(Workspace& ws, const WeightMap& weights, const Block& block,
                     const Chunks& inputs, SiteHook hook)
    : ws_(ws),
      weights_(weights),
      block_(block),
      inputs_(inputs),
      hook_(std::move(hook)),
      interpreter_(ws.graph, weights),
      last_read_(last_reads(ws.graph, block)) {
  resident_ = resident_size() <= ws.resident_bytes;
  if (!resident_) return;
  values_.resize(inputs.size());
  probabilities_.resize(inputs.size());
  for (size_t c = 0; c < inputs.size(); ++c)
    values_[c] = block_values(ws, block, inputs, static_cast<int64_t>(c));
}

// Frees what no node behind block.nodes[place], which has just run, reads.
void BlockWalk::release(size_t place, ValueMap& values) const {
  const Node& node = ws_.graph.node(block_.nodes[place]);
  const auto drop = [&](ValueId id) {
    const auto last = last_read_.find(id);
    const bool dead = last == last_read_.end() || last->second <= place;
    if (dead && id != block_.output) values.erase(id);
  };
  for (const ValueId id : node.inputs) drop(id);
  for (const ValueId id : node.outputs) drop(id);
}

// By one sample: the most that is live behind a node, with the probabilities of that node.
int64_t BlockWalk::resident_size() const {
  if (inputs_.empty()) return 0;
  const at::NoGradGuard no_grad;
  ValueMap values = block_values(ws_, block_, inputs_, 0);
  for (auto& [id, value] : values) value = value.slice(0, 0, 1);
  int64_t most = 0;
  for (size_t i = 0; i < block_.nodes.size(); ++i) {
    int64_t live = 0;
    interpreter_.run_node(block_.nodes[i], values, [&](const Site& site, const at::Tensor& t) {
      if (site.input == kProbabilities) live += t.numel();
      return t;
    });
    for (const auto& [id, value] : values) live += value.numel();
    most = std::max(most, live);
    release(i, values);
  }
  int64_t samples = 0;
  for (const at::Tensor& t : inputs_) samples += t.size(0);
  return most * 4 * samples;
}

void BlockWalk::recompute(int64_t chunk, size_t count, ValueMap& values) const {
  values = block_values(ws_, block_, inputs_, chunk);
  for (size_t i = 0; i < count; ++i) {
    interpreter_.run_node(block_.nodes[i], values, hook_);
    release(i, values);
  }
}

void BlockWalk::visit(const Site& site, const std::function<void(int64_t, const at::Tensor&)>& fn) {
  const auto at = std::find(block_.nodes.begin(), block_.nodes.end(), site.node);
  REPQUANT_CHECK(at - block_.nodes.begin() == static_cast<ptrdiff_t>(stepped_));
  for_each_index(*ws_.pool, chunks(), [&](int64_t c) {
    ValueMap scratch;
    if (!resident_) recompute(c, stepped_, scratch);
    ValueMap& values = resident_ ? values_[static_cast<size_t>(c)] : scratch;
    if (site.input == kNodeOutput) {
      ValueMap copy = values;
      interpreter_.run_node(site.node, copy, hook_);
      fn(c, copy.at(ws_.graph.node(site.node).outputs.at(0)));
      return;
    }
    if (site.input != kProbabilities) {
      fn(c, values.at(ws_.graph.node(site.node).inputs.at(static_cast<size_t>(site.input))));
      return;
    }
    at::Tensor once;
    at::Tensor& probabilities = resident_ ? probabilities_[static_cast<size_t>(c)] : once;
    if (!probabilities.defined()) {
      ValueMap copy = values;
      interpreter_.run_node(site.node, copy, [&](const Site& s, const at::Tensor& t) {
        if (s == site) probabilities = t;
        return s != site && hook_ ? hook_(s, t) : t;
      });
    }
    fn(c, probabilities);
  });
}

void BlockWalk::step(NodeId id) {
  REPQUANT_CHECK(stepped_ < block_.nodes.size() && block_.nodes[stepped_] == id);
  if (resident_) {
    for_each_index(*ws_.pool, chunks(), [&](int64_t c) {
      probabilities_[static_cast<size_t>(c)].reset();
      ValueMap& values = values_[static_cast<size_t>(c)];
      interpreter_.run_node(id, values, hook_);
      release(stepped_, values);
    });
  }
  ++stepped_;
}

at::Tensor BlockWalk::value(ValueId id, int64_t chunk) {
  if (resident_) return values_[static_cast<size_t>(chunk)].at(id);
  const at::NoGradGuard no_grad;
  ValueMap values;
  recompute(chunk, stepped_, values);
  return values.at(id);
}

void BlockWalk::shift_value(ValueId id, const at::Tensor& delta) {
  if (!resident_) return;  // recomputed from the rewritten bias
  for (ValueMap& values : values_) values.at(id) = values.at(id) + delta;
}

Chunks BlockWalk::output() {
  REPQUANT_CHECK(stepped_ == block_.nodes.size());
  Chunks result(inputs_.size());
  for_each_index(*ws_.pool, chunks(), [&](int64_t c) {
    result[static_cast<size_t>(c)] = value(block_.output, c).contiguous();
  });
  return result;
}

Chunks run_block(Workspace& ws, const WeightMap& weights, const Block& block, const Chunks& inputs,
                 const SiteHook& hook) {
  Chunks result(inputs.size());
  const Interpreter interpreter(ws.graph, weights);
  for_each_index(*ws.pool, static_cast<int64_t>(inputs.size()), [&](int64_t c) {
    ValueMap values = block_values(ws, block, inputs, c);
    const ValueId keep[] = {block.output};
    interpreter.run_nodes(block.nodes, values, keep, hook);
    result[static_cast<size_t>(c)] = values.at(block.output).contiguous();
  });
  return result;
}

}  // namespace repquant::observe
