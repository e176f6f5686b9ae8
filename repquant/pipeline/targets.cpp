#include "repquant/pipeline/targets.h"

#include <cctype>
#include <regex>
#include <set>

#include <fmt/format.h>

#include "repquant/graph/reads_input.h"

namespace repquant {
namespace {

bool is_data(const Workspace& ws, NodeId id, int input) {
  const Node& node = ws.graph.node(id);
  const auto index = static_cast<size_t>(input);
  return index < node.inputs.size() && node.inputs[index] != kNoValue &&
         !ws.graph.is_constant(node.inputs[index]);
}

void add_layer(const Workspace& ws, NodeId id, int weight_bits, int activation_bits,
               std::map<Site, SiteTarget>& targets) {
  if (!ws.has_constant(id, 1) || !is_data(ws, id, 0)) return;
  targets[{id, 0}] = {Role::kActivation, activation_bits, "auto", false};
  targets[{id, 1}] = {Role::kWeight, weight_bits, "auto", false};
}

// Linears of a spectral front end: those in front of a logarithm (windowed transforms, filter
// banks: a common scale for all their outputs would leave nothing of the quiet ones), and those
// without bias that read it (cosine transforms).
std::set<NodeId> front_end(const Workspace& ws) {
  const Graph& graph = ws.graph;
  const auto without_bias = [&](NodeId id) {
    return !ws.has_constant(id, 2) || ws.constant(id, 2).abs().max().item<float>() == 0.0f;
  };
  std::set<NodeId> found, seen;
  std::vector<ValueId> before, behind;
  for (const NodeId id : graph.order()) {
    if (graph.node(id).op != OpKind::kLog) continue;
    before.push_back(graph.node(id).inputs[0]);
    behind.push_back(graph.node(id).outputs[0]);
  }
  while (!before.empty()) {
    const ValueId value = before.back();
    before.pop_back();
    const NodeId id = value == kNoValue ? -1 : graph.value(value).producer;
    if (id < 0 || !seen.insert(id).second) continue;
    const Node& node = graph.node(id);
    if (node.op == OpKind::kLinear) found.insert(id);
    before.insert(before.end(), node.inputs.begin(), node.inputs.end());
  }
  while (!behind.empty()) {
    const std::vector<NodeId> readers = graph.consumers(behind.back());
    behind.pop_back();
    for (const NodeId id : readers) {
      const Node& node = graph.node(id);
      if (node.op == OpKind::kLinear && without_bias(id)) found.insert(id);
      if (node.op == OpKind::kMul && node.inputs.size() == 2) behind.push_back(node.outputs[0]);
    }
  }
  return found;
}

std::regex rule_pattern(const std::string& match) {
  try {
    if (match.rfind("re:", 0) == 0) return std::regex(match.substr(3));
    std::string pattern;
    for (const char c : match) {
      if (c == '*') pattern += ".*";
      else if (c == '?') pattern += '.';
      else if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_') pattern += c;
      else pattern += std::string("\\") + c;
    }
    return std::regex(pattern);
  } catch (const std::regex_error& error) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("recipe: layer rule \"{}\": not a regular expression ({})", match,
                            error.what()));
  }
}

bool is_operand(const Workspace& ws, const Site& site) {
  return ws.graph.node(site.node).op == OpKind::kMultiHeadAttention && site.input <= 2;
}

void set_head_bits(const Workspace& ws, int bits, std::map<Site, SiteTarget>& targets) {
  bool found = false;
  for (const NodeId id : head_layers(ws.graph)) {
    for (const int input : {0, 1}) {
      const auto target = targets.find({id, input});
      if (target == targets.end()) continue;
      target->second.bits = bits;
      found = true;
    }
  }
  if (found) return;
  throw Error(ErrorCode::kInvalidArgument,
              "recipe: head_bits: no linear layer or convolution ends this model",
              "name layers by [[layer]] rules");
}

// Weights of convolutions whose groups read one channel each: few, and an output sums few of them.
void set_depthwise_bits(const Workspace& ws, int bits, std::map<Site, SiteTarget>& targets) {
  for (auto& [site, target] : targets) {
    const Node& node = ws.graph.node(site.node);
    const bool depthwise = node.op == OpKind::kConv && node.attrs.integer("group", 1) > 1 &&
                           ws.constant(site.node, 1).size(1) == 1;
    if (depthwise && target.role == Role::kWeight) target.bits = bits;
  }
}

// Every attention operand that `wanted` picks; true if there was one.
template <class Wanted>
bool set_granularity(const Workspace& ws, const std::string& granularity, Wanted wanted,
                     std::map<Site, SiteTarget>& targets) {
  bool found = false;
  for (auto& [site, target] : targets) {
    if (!is_operand(ws, site) || !wanted(site)) continue;
    target.granularity = granularity;
    found = true;
  }
  return found;
}

void apply_rule(const LayerRule& rule, SiteTarget& target) {
  const bool weight = target.role == Role::kWeight;
  const int bits = weight ? rule.weights : rule.activations;
  if (bits != 0) target.bits = bits;
  if (rule.format == "float") target.format = "float";
  else if (!rule.format.empty()) target.format = weight ? "auto" : rule.format;
  if (!rule.levels.empty()) target.compat = rule.levels == "compat";
}

// Layers with a site of format "float" leave the targets, weight and input.
void keep_float(const Workspace& ws, std::map<Site, SiteTarget>& targets) {
  std::set<NodeId> kept;
  for (const auto& [site, target] : targets) {
    if (target.format != "float") continue;
    const Node& node = ws.graph.node(site.node);
    if (node.op != OpKind::kLinear) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("recipe: layer rule for \"{}\": format float: expected a linear "
                              "layer, got {}",
                              node.name, name_of(node.op)),
                  "what is not linear can have 8 bits");
    }
    kept.insert(site.node);
  }
  std::erase_if(targets, [&](const auto& entry) { return kept.contains(entry.first.node); });
}

}  // namespace

std::vector<NodeId> head_layers(const Graph& graph) {
  std::vector<NodeId> heads;
  std::vector<ValueId> pending = graph.outputs;
  std::set<NodeId> seen;
  while (!pending.empty()) {
    const ValueId value = pending.back();
    pending.pop_back();
    if (value == kNoValue || graph.is_constant(value)) continue;
    const NodeId id = graph.value(value).producer;
    if (id < 0 || !seen.insert(id).second) continue;
    const Node& node = graph.node(id);
    const bool layer = node.op == OpKind::kLinear || node.op == OpKind::kConv;
    if (layer) heads.push_back(id);
    if (layer || node.op == OpKind::kMultiHeadAttention) continue;
    pending.insert(pending.end(), node.inputs.begin(), node.inputs.end());
  }
  return heads;
}

std::map<Site, SiteTarget> make_targets(const Workspace& ws, const Recipe& recipe) {
  std::map<Site, SiteTarget> targets;
  const Scheme& scheme = recipe.scheme;
  const std::set<NodeId> floating = front_end(ws);
  if (!floating.empty() && ws.sink != nullptr)
    ws.sink->info(fmt::format("{} linear layers around a logarithm stay in float", floating.size()));
  for (const NodeId id : ws.graph.order()) {
    if (floating.contains(id)) continue;
    const OpKind op = ws.graph.node(id).op;
    if (op == OpKind::kLinear || op == OpKind::kConv) {
      const bool first =
          op == OpKind::kConv && reads_graph_input(ws.graph, ws.graph.node(id).inputs[0]);
      add_layer(ws, id, first ? 8 : scheme.weight_bits, first ? 8 : scheme.activation_bits,
                targets);
    }
    if (op != OpKind::kMultiHeadAttention) continue;
    for (const int input : {0, 1, 2, kProbabilities}) {
      targets[{id, input}] = {Role::kActivation, scheme.activation_bits, "auto", false};
    }
  }
  if (recipe.depthwise_bits != 0) set_depthwise_bits(ws, recipe.depthwise_bits, targets);
  if (recipe.head_bits != 0) set_head_bits(ws, recipe.head_bits, targets);
  const auto all = [](const Site&) { return true; };
  if (recipe.granularity != "tensor" && !set_granularity(ws, recipe.granularity, all, targets)) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("recipe: granularity \"{}\": this model has no attention", recipe.granularity));
  }
  for (const LayerRule& rule : recipe.layers) {
    const std::regex pattern = rule_pattern(rule.match);
    const auto matches = [&](const Site& site) {
      return std::regex_match(ws.graph.node(site.node).name, pattern) ||
             std::regex_match(site_name(ws.graph, site), pattern);
    };
    bool matched = false;
    for (auto& [site, target] : targets) {
      if (!matches(site)) continue;
      matched = true;
      apply_rule(rule, target);
    }
    if (!matched) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("recipe: layer rule \"{}\" matches no layer", rule.match),
                  "repquant inspect MODEL lists the names");
    }
    if (rule.granularity.empty() || set_granularity(ws, rule.granularity, matches, targets))
      continue;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("recipe: layer rule \"{}\": granularity is of attention operands; it "
                            "matches none",
                            rule.match));
  }
  keep_float(ws, targets);
  if (targets.empty() && ws.sink != nullptr) {
    ws.sink->warning("W003", "model", "no layer to quantize: everything stays in float",
                     "linear layers, convolutions and attention are quantized");
  }
  return targets;
}

}  // namespace repquant
