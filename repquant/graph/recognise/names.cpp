// One spelling for what two exporters write differently: attributes that state a default, and names.
#include <map>
#include <set>

#include <fmt/format.h>

#include "repquant/graph/recognise/matcher.h"

namespace repquant::patterns {
namespace {

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() > end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// "blocks.0.attn.qkv.weight" -> "blocks.0.attn.qkv"; "" for other names.
std::string stem(const std::string& name) {
  for (const std::string_view end : {".weight", ".bias", ".gamma", ".beta"}) {
    if (ends_with(name, end)) return name.substr(0, name.size() - end.size());
  }
  return "";
}

// "blocks.0.attn.qkv" -> "blocks.0.attn"; "" without a dot.
std::string parent(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

bool has_parameters(OpKind op) {
  switch (op) {
    case OpKind::kLinear: case OpKind::kConv: case OpKind::kConvTranspose: case OpKind::kLayerNorm:
    case OpKind::kRmsNorm: case OpKind::kBatchNorm: case OpKind::kGroupNorm: case OpKind::kInstanceNorm:
      return true;
    default:
      return false;
  }
}

std::string parameter_stem(const Graph& graph, const Node& node) {
  for (size_t i = 1; i < node.inputs.size(); ++i) {
    if (!graph.is_constant(node.inputs[i])) continue;
    if (auto name = stem(graph.value(node.inputs[i]).name); !name.empty()) return name;
  }
  return "";
}

// The nearest named producer of an input, through nodes that only move data.
std::string producer_name(const Graph& graph, const std::map<NodeId, std::string>& named, ValueId id) {
  for (int i = 0; i < 6 && id != kNoValue && graph.value(id).producer >= 0; ++i) {
    const NodeId producer = graph.value(id).producer;
    const auto it = named.find(producer);
    if (it != named.end() && graph.node(producer).op != OpKind::kSplit) return it->second;
    id = graph.node(producer).inputs.empty() ? kNoValue : graph.node(producer).inputs[0];
  }
  return "";
}

std::string wanted_name(const Graph& graph, const std::map<NodeId, std::string>& named, const Node& node) {
  if (has_parameters(node.op)) return parameter_stem(graph, node);
  const bool follows = node.op == OpKind::kGelu || node.op == OpKind::kSilu || node.op == OpKind::kSplit ||
                       node.op == OpKind::kMultiHeadAttention;
  if (!follows) return "";
  const std::string source = producer_name(graph, named, node.inputs[0]);
  if (source.empty()) return "";
  if (node.op == OpKind::kSplit) return source + ".split";
  const std::string module = parent(source);
  if (module.empty()) return "";
  return node.op == OpKind::kMultiHeadAttention ? module : module + "." + std::string(name_of(node.op));
}

}  // namespace

void canonical_names(Graph& graph) {
  std::map<NodeId, std::string> named;
  std::set<std::string> taken;
  const auto unique = [&](const std::string& wanted) {
    std::string name = wanted;
    for (int i = 2; !taken.insert(name).second; ++i) name = fmt::format("{}.{}", wanted, i);
    return name;
  };
  for (const NodeId id : graph.order()) {
    const std::string wanted = wanted_name(graph, named, graph.node(id));
    if (!wanted.empty()) named[id] = unique(wanted);
  }
  for (const NodeId id : graph.order()) {
    Node& node = graph.node(id);
    const auto it = named.find(id);
    node.name = it != named.end() ? it->second : unique(node.name);
    if (it == named.end() || !has_parameters(node.op)) continue;
    for (size_t i = 1; i < node.inputs.size(); ++i) {   // constants made on the way, "val_13"
      if (!graph.is_constant(node.inputs[i])) continue;
      Value& value = graph.value(node.inputs[i]);
      if (stem(value.name).empty() && i <= 2) value.name = node.name + (i == 1 ? ".weight" : ".bias");
    }
  }
}

void canonical_attributes(Graph& graph) {
  for (const NodeId id : graph.order()) {
    Node& node = graph.node(id);
    Attrs kept;
    for (const auto& [name, value] : node.attrs.all()) {
      const auto* number = std::get_if<int64_t>(&value);
      const auto* text = std::get_if<std::string>(&value);
      const bool is_default = (name == "stash_type" && number && *number == 1) ||
                              (name == "auto_pad" && text && *text == "NOTSET") ||
                              (name == "allowzero" && number && *number == 0) ||
                              (name == "noop_with_empty_axes" && number && *number == 0);
      if (!is_default) kept.set(name, value);
    }
    if (node.op == OpKind::kLayerNorm || node.op == OpKind::kRmsNorm) {
      const auto& shape = graph.value(node.inputs[0]).shape;
      const int64_t axis = node.attrs.integer("axis", -1);
      kept.set("axis", shape && axis == static_cast<int64_t>(shape->size()) - 1 ? int64_t{-1} : axis);
      kept.set("epsilon", node.attrs.real("epsilon", 1e-5F));
    }
    if (node.op == OpKind::kSoftmax) kept.set("axis", node.attrs.integer("axis", -1));
    if (node.op == OpKind::kGelu) kept.set("approximate", node.attrs.text("approximate", "none"));
    node.attrs = std::move(kept);
  }
}

}  // namespace repquant::patterns
