#include "repquant/pipeline/targets.h"

#include <cctype>
#include <regex>

#include <fmt/format.h>

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

void apply_rule(const LayerRule& rule, SiteTarget& target) {
  const bool weight = target.role == Role::kWeight;
  const int bits = weight ? rule.weights : rule.activations;
  if (bits != 0) target.bits = bits;
  if (!rule.format.empty() && !weight) target.format = rule.format;
  if (!rule.levels.empty()) target.compat = rule.levels == "compat";
}

}  // namespace

std::map<Site, SiteTarget> make_targets(const Workspace& ws, const Scheme& scheme,
                                        const std::vector<LayerRule>& rules) {
  std::map<Site, SiteTarget> targets;
  for (const NodeId id : ws.graph.order()) {
    const OpKind op = ws.graph.node(id).op;
    if (op == OpKind::kConv) add_layer(ws, id, 8, 8, targets);
    if (op == OpKind::kLinear)
      add_layer(ws, id, scheme.weight_bits, scheme.activation_bits, targets);
    if (op != OpKind::kMultiHeadAttention) continue;
    for (const int input : {0, 1, 2, kProbabilities}) {
      targets[{id, input}] = {Role::kActivation, scheme.activation_bits, "auto", false};
    }
  }
  for (const LayerRule& rule : rules) {
    const std::regex pattern = rule_pattern(rule.match);
    bool matched = false;
    for (auto& [site, target] : targets) {
      if (!std::regex_match(ws.graph.node(site.node).name, pattern) &&
          !std::regex_match(site_name(ws.graph, site), pattern)) {
        continue;
      }
      matched = true;
      apply_rule(rule, target);
    }
    if (!matched) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("recipe: layer rule \"{}\" matches no layer", rule.match),
                  "repquant inspect MODEL lists the names");
    }
  }
  return targets;
}

}  // namespace repquant
