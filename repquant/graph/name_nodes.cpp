#include "repquant/graph/name_nodes.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

namespace repquant {
namespace {

constexpr int kReach = 24;        // nodes that a walk towards the inputs passes through
constexpr size_t kSpread = 64;    // nodes that a search towards the outputs visits

std::string parent(const std::string& name) {
  const size_t dot = name.rfind('.');
  return dot == std::string::npos ? "" : name.substr(0, dot);
}

std::string stem(const std::string& name) {
  for (const std::string_view end : {".weight", ".bias", ".gamma", ".beta", ".w_0", ".b_0"}) {
    if (name.size() > end.size() && name.ends_with(end))
      return name.substr(0, name.size() - end.size());
  }
  return "";
}

// "/blocks.0/attn/qkv/MatMul" -> "blocks.0.attn.qkv"; "" for names of another form.
std::string module_path(const std::string& name) {
  const size_t last = name.rfind('/');
  if (name.empty() || name[0] != '/' || last == 0) return "";
  std::string path = name.substr(1, last - 1);
  std::replace(path.begin(), path.end(), '/', '.');
  return path;
}

bool is_product(OpKind op) {
  return op == OpKind::kLinear || op == OpKind::kConv || op == OpKind::kConvTranspose ||
         op == OpKind::kGemm;
}

bool is_norm(OpKind op) {
  return op == OpKind::kLayerNorm || op == OpKind::kRmsNorm || op == OpKind::kGroupNorm ||
         op == OpKind::kInstanceNorm || op == OpKind::kBatchNorm;
}

bool is_activation(OpKind op) { return op == OpKind::kGelu || op == OpKind::kSilu; }

class Namer {
 public:
  explicit Namer(Graph& graph) : graph_(graph) {}

  void run() {
    for (const NodeId id : graph_.order()) {
      std::string wanted = name_for(id);
      if (!wanted.empty()) named_[id] = unique(wanted);
    }
    for (const NodeId id : graph_.order()) {
      const auto it = named_.find(id);
      graph_.node(id).name = it != named_.end() ? it->second : unique(graph_.node(id).name);
      if (it != named_.end()) name_constants(graph_.node(id));
    }
  }

 private:
  std::string unique(const std::string& wanted) {
    std::string name = wanted;
    for (int i = 2; !taken_.insert(name).second; ++i) name = fmt::format("{}_{}", wanted, i);
    return name;
  }

  std::string name_for(NodeId id) const {
    const Node& node = graph_.node(id);
    if (is_product(node.op) || is_norm(node.op)) {
      if (auto name = parameter_stem(node, 1); !name.empty()) return name;
      if (auto name = module_path(node.name); !name.empty()) return name;
      return node.op == OpKind::kLinear ? place(id) : "";
    }
    if (node.op == OpKind::kGather) return parameter_stem(node, 0);
    if (node.op == OpKind::kMultiHeadAttention) return attention_name(node);
    if (!is_activation(node.op)) return "";
    const std::string module = parent(source_name(node.inputs[0]));
    return module.empty() ? "" : module + ".act";
  }

  std::string parameter_stem(const Node& node, size_t first) const {
    for (size_t i = first; i < node.inputs.size(); ++i) {
      if (!graph_.is_constant(node.inputs[i])) continue;
      if (auto name = stem(graph_.value(node.inputs[i]).name); !name.empty()) return name;
    }
    return "";
  }

  // The nearest named node that is not a split, following first inputs.
  std::string source_name(ValueId id) const {
    for (int i = 0; i < kReach && id != kNoValue && graph_.value(id).producer >= 0; ++i) {
      const NodeId producer = graph_.value(id).producer;
      if (const auto it = named_.find(producer); it != named_.end()) return it->second;
      const Node& node = graph_.node(producer);
      id = node.inputs.empty() ? kNoValue : node.inputs[0];
    }
    return "";
  }

  std::string attention_name(const Node& node) const {
    const std::string q = source_name(node.inputs[0]), v = source_name(node.inputs[2]);
    const std::string module = parent(q);
    if (!module.empty() && parent(v) == module) return module;
    return module_path(node.name);
  }

  // Where a linear without names stands in a pre-norm block.
  std::string place(NodeId id) const {
    const Node& node = graph_.node(id);
    const std::string block = norm_module(node.inputs[0]);
    const auto letter = block.empty() ? std::nullopt : attention_input(node.outputs[0]);
    if (letter) return block + ".attn." + *letter;
    const NodeId source = nearest_landmark(node.inputs[0]);
    if (source < 0 || !named_.count(source)) return "";
    const OpKind op = graph_.node(source).op;
    const std::string& name = named_.at(source);
    if (op == OpKind::kMultiHeadAttention) return name + ".proj";
    if (is_norm(op) && !parent(name).empty()) return parent(name) + ".mlp.fc1";
    if (is_activation(op) && !parent(name).empty()) return parent(name) + ".fc2";
    return "";
  }

  // "q", "k" or "v" where the value reaches an attention before any other product.
  std::optional<std::string> attention_input(ValueId start) const {
    static constexpr const char* kLetters[] = {"q", "k", "v"};
    std::vector<ValueId> open{start};
    std::set<NodeId> seen;
    for (size_t i = 0; i < open.size() && seen.size() < kSpread; ++i) {
      for (const NodeId reader : graph_.consumers(open[i])) {
        const Node& node = graph_.node(reader);
        if (!seen.insert(reader).second || is_product(node.op) || is_norm(node.op)) continue;
        if (node.op == OpKind::kMultiHeadAttention) {
          for (size_t k = 0; k < 3; ++k) {
            if (node.inputs[k] == open[i]) return kLetters[k];
          }
          continue;
        }
        open.insert(open.end(), node.outputs.begin(), node.outputs.end());
      }
    }
    return std::nullopt;
  }

  NodeId nearest_landmark(ValueId id) const {
    for (int i = 0; i < kReach && id != kNoValue && graph_.value(id).producer >= 0; ++i) {
      const NodeId producer = graph_.value(id).producer;
      const Node& node = graph_.node(producer);
      if (is_norm(node.op) || is_activation(node.op) || node.op == OpKind::kMultiHeadAttention)
        return producer;
      if (is_product(node.op) || node.inputs.empty()) return -1;
      id = node.inputs[0];
    }
    return -1;
  }

  std::string norm_module(ValueId id) const {
    const NodeId source = nearest_landmark(id);
    if (source < 0 || !is_norm(graph_.node(source).op) || !named_.count(source)) return "";
    return parent(named_.at(source));
  }

  void name_constants(const Node& node) {
    if (!is_product(node.op) && !is_norm(node.op)) return;
    static constexpr const char* kEnds[] = {".weight", ".bias"};
    for (size_t i = 1; i < std::min<size_t>(3, node.inputs.size()); ++i) {
      if (!graph_.is_constant(node.inputs[i])) continue;
      Value& value = graph_.value(node.inputs[i]);
      if (stem(value.name).empty()) value.name = node.name + kEnds[i - 1];
    }
  }

  Graph& graph_;
  std::map<NodeId, std::string> named_;
  std::set<std::string> taken_;
};

}  // namespace

void name_nodes(Graph& graph) { Namer(graph).run(); }

}  // namespace repquant
