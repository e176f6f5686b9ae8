#include "repquant/graph/graph.h"

#include <algorithm>
#include <array>
#include <functional>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "repquant/graph/arity.h"
#include "repquant/graph/quant_plan.h"

namespace repquant {
namespace {

struct OpRow {
  OpKind kind;
  std::string_view text, onnx;
};

constexpr auto kOps = std::to_array<OpRow>({
#define REPQUANT_OP(name, text, onnx) {OpKind::k##name, text, onnx},
#include "repquant/graph/ops.def"
#undef REPQUANT_OP
});

[[noreturn]] void wrong_attribute(const std::string& name, const char* expected) {
  throw Error(ErrorCode::kCorruptFile,
              "graph: attribute \"" + name + "\": expected " + expected + ", got another type");
}

[[noreturn]] void broken(const std::string& what) {
  throw Error(ErrorCode::kInternal, "graph: verify: " + what);
}

}  // namespace

std::string_view name_of(OpKind op) {
  const auto index = static_cast<size_t>(op);
  REPQUANT_CHECK(index < kOps.size());
  return kOps[index].text;
}

std::optional<OpKind> op_from_onnx(std::string_view onnx_name) {
  static const auto kByName = [] {
    std::unordered_map<std::string_view, OpKind> map;
    for (const OpRow& row : kOps) {
      if (!row.onnx.empty()) map.emplace(row.onnx, row.kind);
    }
    return map;
  }();
  const auto it = kByName.find(onnx_name);
  if (it == kByName.end()) return std::nullopt;
  return it->second;
}

const std::vector<std::string>& supported_onnx_ops() {
  static const auto kNames = [] {
    std::vector<std::string> names;
    for (const OpRow& row : kOps) {
      if (!row.onnx.empty()) names.emplace_back(row.onnx);
    }
    std::sort(names.begin(), names.end());
    return names;
  }();
  return kNames;
}

std::string to_string(const SymbolicShape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    if (shape[i].known()) text += std::to_string(shape[i].size);
    else text += shape[i].symbol.empty() ? "?" : shape[i].symbol;
  }
  return text + "]";
}

// ---- Attrs
// ------------------------------------------------------------------------------------------

int64_t Attrs::integer(const std::string& name, int64_t fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  if (const auto* value = std::get_if<int64_t>(&it->second)) return *value;
  wrong_attribute(name, "an integer");
}

float Attrs::real(const std::string& name, float fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  if (const auto* value = std::get_if<float>(&it->second)) return *value;
  if (const auto* value = std::get_if<int64_t>(&it->second)) return static_cast<float>(*value);
  wrong_attribute(name, "a number");
}

std::string Attrs::text(const std::string& name, const std::string& fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  if (const auto* value = std::get_if<std::string>(&it->second)) return *value;
  wrong_attribute(name, "a text");
}

std::vector<int64_t> Attrs::integers(const std::string& name, std::vector<int64_t> fallback) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return fallback;
  if (const auto* value = std::get_if<std::vector<int64_t>>(&it->second)) return *value;
  if (const auto* value = std::get_if<int64_t>(&it->second)) return {*value};
  wrong_attribute(name, "a list of integers");
}

std::vector<float> Attrs::reals(const std::string& name) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return {};
  if (const auto* value = std::get_if<std::vector<float>>(&it->second)) return *value;
  if (const auto* value = std::get_if<float>(&it->second)) return {*value};
  wrong_attribute(name, "a list of numbers");
}

const Tensor* Attrs::tensor(const std::string& name) const {
  const auto it = values_.find(name);
  if (it == values_.end()) return nullptr;
  if (const auto* value = std::get_if<Tensor>(&it->second)) return value;
  wrong_attribute(name, "a tensor");
}

// ---- edits
// ------------------------------------------------------------------------------------------

ValueId Graph::add_value(Value value) {
  values_.push_back(std::move(value));
  return static_cast<ValueId>(values_.size() - 1);
}

ValueId Graph::add_constant(const std::string& name, Tensor tensor) {
  Value value;
  value.name = name;
  value.dtype = tensor.dtype();
  value.shape.emplace();
  for (const int64_t size : tensor.shape()) value.shape->push_back({size, {}});
  value.constant = std::move(tensor);
  return add_value(std::move(value));
}

NodeId Graph::add_node(Node node, NodeId before) {
  const auto id = static_cast<NodeId>(nodes_.size());
  for (const ValueId output : node.outputs) {
    if (output == kNoValue) continue;
    Value& v = value(output);
    REPQUANT_CHECK(v.producer == -1 && !v.constant.has_value());
    v.producer = id;
  }
  nodes_.emplace_back(std::move(node));
  if (before < 0) {
    order_.push_back(id);
  } else {
    const auto at = std::find(order_.begin(), order_.end(), before);
    REPQUANT_CHECK(at != order_.end());
    order_.insert(at, id);
  }
  return id;
}

void Graph::remove_node(NodeId id) {
  for (const ValueId output : node(id).outputs) {
    if (output != kNoValue) value(output).producer = -1;
  }
  nodes_[static_cast<size_t>(id)].reset();
  order_.erase(std::find(order_.begin(), order_.end(), id));
}

void Graph::replace_uses(ValueId from, ValueId to) {
  for (const NodeId id : order_) {
    for (ValueId& input : node(id).inputs) {
      if (input == from) input = to;
    }
  }
  std::replace(outputs.begin(), outputs.end(), from, to);
}

// ---- access
// -----------------------------------------------------------------------------------------

bool Graph::alive(NodeId id) const {
  return id >= 0 && static_cast<size_t>(id) < nodes_.size() &&
         nodes_[static_cast<size_t>(id)].has_value();
}

const Node& Graph::node(NodeId id) const {
  REPQUANT_CHECK(alive(id));
  return *nodes_[static_cast<size_t>(id)];
}

Node& Graph::node(NodeId id) {
  REPQUANT_CHECK(alive(id));
  return *nodes_[static_cast<size_t>(id)];
}

const Value& Graph::value(ValueId id) const {
  REPQUANT_CHECK(id >= 0 && static_cast<size_t>(id) < values_.size());
  return values_[static_cast<size_t>(id)];
}

Value& Graph::value(ValueId id) {
  REPQUANT_CHECK(id >= 0 && static_cast<size_t>(id) < values_.size());
  return values_[static_cast<size_t>(id)];
}

std::vector<NodeId> Graph::consumers(ValueId id) const {
  std::vector<NodeId> found;
  for (const NodeId n : order_) {
    const auto& ins = node(n).inputs;
    if (std::find(ins.begin(), ins.end(), id) != ins.end()) found.push_back(n);
  }
  return found;
}

bool Graph::is_output(ValueId id) const {
  return std::find(outputs.begin(), outputs.end(), id) != outputs.end();
}

// ---- whole-graph work
// -------------------------------------------------------------------------------

void Graph::remove_dead() {
  std::vector<int64_t> uses(values_.size(), 0);
  for (const ValueId id : outputs) ++uses[static_cast<size_t>(id)];
  for (const NodeId n : order_) {
    for (const ValueId id : node(n).inputs) {
      if (id != kNoValue) ++uses[static_cast<size_t>(id)];
    }
  }
  // Backwards, so that what only a dead node read dies in the same sweep.
  std::vector<NodeId> kept;
  for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
    const Node& n = node(*it);
    const bool used = std::any_of(n.outputs.begin(), n.outputs.end(), [&](ValueId id) {
      return id != kNoValue && uses[static_cast<size_t>(id)] > 0;
    });
    if (used) {
      kept.push_back(*it);
      continue;
    }
    for (const ValueId id : n.inputs) {
      if (id != kNoValue) --uses[static_cast<size_t>(id)];
    }
    for (const ValueId id : n.outputs) {
      if (id != kNoValue) value(id).producer = -1;
    }
    nodes_[static_cast<size_t>(*it)].reset();
  }
  order_.assign(kept.rbegin(), kept.rend());
  for (size_t i = 0; i < values_.size(); ++i) {
    if (uses[i] == 0) values_[i].constant.reset();
  }
}

void Graph::sort() {
  std::vector<size_t> position(nodes_.size(), 0);
  std::vector<size_t> waiting(nodes_.size(), 0);
  std::vector<std::vector<NodeId>> readers(nodes_.size());
  for (size_t i = 0; i < order_.size(); ++i) position[static_cast<size_t>(order_[i])] = i;
  std::priority_queue<size_t, std::vector<size_t>, std::greater<>>
      ready;  // earliest position first
  for (const NodeId id : order_) {
    std::unordered_set<NodeId> before;
    for (const ValueId input : node(id).inputs) {
      if (input != kNoValue && value(input).producer >= 0) before.insert(value(input).producer);
    }
    for (const NodeId producer : before) readers[static_cast<size_t>(producer)].push_back(id);
    waiting[static_cast<size_t>(id)] = before.size();
    if (before.empty()) ready.push(position[static_cast<size_t>(id)]);
  }
  std::vector<NodeId> sorted;
  sorted.reserve(order_.size());
  while (!ready.empty()) {
    const NodeId id = order_[ready.top()];
    ready.pop();
    sorted.push_back(id);
    for (const NodeId reader : readers[static_cast<size_t>(id)]) {
      if (--waiting[static_cast<size_t>(reader)] == 0)
        ready.push(position[static_cast<size_t>(reader)]);
    }
  }
  if (sorted.size() != order_.size()) {
    const auto stuck = std::find_if(order_.begin(), order_.end(), [&](NodeId id) {
      return waiting[static_cast<size_t>(id)] > 0;
    });
    throw Error(ErrorCode::kCorruptFile,
                "graph: node \"" + node(*stuck).name +
                    "\": expected a graph without cycles, got one through this node");
  }
  order_ = std::move(sorted);
}

namespace {

void verify_arity(const Node& node) {
  const Arity arity = arity_of(node.op);
  const auto inputs = static_cast<int>(node.inputs.size());
  const auto outputs = static_cast<int>(node.outputs.size());
  if (inputs < arity.min_inputs || inputs > arity.max_inputs || outputs < arity.min_outputs ||
      outputs > arity.max_outputs) {
    broken("node \"" + node.name + "\" (" + std::string(name_of(node.op)) + ") has " +
           std::to_string(inputs) + " inputs and " + std::to_string(outputs) + " outputs");
  }
  for (int i = 0; i < arity.min_inputs; ++i) {
    if (node.inputs[static_cast<size_t>(i)] == kNoValue) {
      broken("node \"" + node.name + "\" lacks input " + std::to_string(i));
    }
  }
}

}  // namespace

void Graph::verify() const {
  std::vector<char> defined(values_.size(), 0);
  for (size_t i = 0; i < values_.size(); ++i) defined[i] = values_[i].constant.has_value();
  for (const ValueId id : inputs) {
    const Value& v = value(id);
    if (v.producer != -1 || v.constant) broken("graph input \"" + v.name + "\" is also produced");
    defined[static_cast<size_t>(id)] = 1;
  }
  std::unordered_set<std::string_view> names;
  for (const NodeId id : order_) {
    const Node& n = node(id);
    if (n.name.empty() || !names.insert(n.name).second) {
      broken("node name \"" + n.name + "\" is empty or used twice");
    }
    verify_arity(n);
    for (const ValueId input : n.inputs) {
      if (input != kNoValue && !defined[static_cast<size_t>(input)]) {
        broken("node \"" + n.name + "\" reads \"" + value(input).name + "\" before it is defined");
      }
    }
    for (const ValueId output : n.outputs) {
      if (output == kNoValue) continue;
      if (value(output).producer != id || defined[static_cast<size_t>(output)]) {
        broken("value \"" + value(output).name + "\" has more than one producer");
      }
      defined[static_cast<size_t>(output)] = 1;
    }
  }
  for (const ValueId id : outputs) {
    if (id == kNoValue || !defined[static_cast<size_t>(id)]) broken("a graph output is undefined");
  }
}

std::string site_name(const Graph& graph, const Site& site) {
  const Node& node = graph.node(site.node);
  const auto part = [&]() -> std::string {
    if (site.input == kProbabilities) return "probabilities";
    const auto index = static_cast<size_t>(site.input);
    const bool constant = index < node.inputs.size() && graph.is_constant(node.inputs[index]);
    switch (node.op) {
      case OpKind::kLinear: case OpKind::kConv: case OpKind::kConvTranspose: case OpKind::kGemm: {
        static constexpr const char* kParts[] = {"input", "weight", "bias"};
        if (index < std::size(kParts)) return kParts[index];
        break;
      }
      case OpKind::kMultiHeadAttention: {
        static constexpr const char* kParts[] = {"q", "k", "v", "mask"};
        if (index < std::size(kParts)) return kParts[index];
        break;
      }
      case OpKind::kMatMul:
        if (constant) return "weight";
        if (index < 2 && !graph.is_constant(node.inputs[1 - index])) return index == 0 ? "a" : "b";
        return "input";
      default: break;
    }
    return index == 0 ? "input" : "input" + std::to_string(index);
  }();
  return node.name + ":" + part;
}

}  // namespace repquant
