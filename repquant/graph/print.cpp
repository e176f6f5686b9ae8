#include <fmt/format.h>

#include "repquant/graph/graph.h"

namespace repquant {
namespace {

constexpr size_t kListLimit = 8;   // longer attribute lists are cut

template <class T> std::string list_text(const std::vector<T>& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) {
    if (i == kListLimit) {
      text += fmt::format(", ... {} in all", values.size());
      break;
    }
    text += fmt::format("{}{}", i > 0 ? ", " : "", values[i]);
  }
  return text + "]";
}

std::string attribute_text(const AttrValue& value) {
  struct Visitor {
    std::string operator()(int64_t v) const { return std::to_string(v); }
    std::string operator()(float v) const { return fmt::format("{}", v); }
    std::string operator()(const std::string& v) const { return '"' + v + '"'; }
    std::string operator()(const std::vector<int64_t>& v) const { return list_text(v); }
    std::string operator()(const std::vector<float>& v) const { return list_text(v); }
    std::string operator()(const Tensor& v) const {
      return fmt::format("{}{}", name_of(v.dtype()),
                         to_string(std::span<const int64_t>(v.shape())));
    }
  };
  return std::visit(Visitor{}, value);
}

std::string type_text(const Value& value) {
  return fmt::format("{}{}", name_of(value.dtype), value.shape ? to_string(*value.shape) : "[...]");
}

// Small integer constants (axes, shapes) are worth their digits; weights only their type.
std::string input_text(const Graph& graph, ValueId id) {
  if (id == kNoValue) return "-";
  const Value& value = graph.value(id);
  if (!value.constant) return "%" + value.name;
  const Tensor& tensor = *value.constant;
  if (tensor.dtype() == DType::kI64 && tensor.size() <= static_cast<int64_t>(kListLimit)) {
    const auto span = tensor.as<int64_t>();
    return list_text(std::vector<int64_t>(span.begin(), span.end()));
  }
  if (tensor.dtype() == DType::kF32 && tensor.size() == 1) {
    return fmt::format("{}", tensor.as<float>()[0]);
  }
  return fmt::format("@{} {}", value.name, type_text(value));
}

int64_t parameter_count(const Graph& graph) {
  int64_t count = 0;
  for (ValueId id = 0; id < static_cast<ValueId>(graph.value_count()); ++id) {
    const auto& constant = graph.value(id).constant;
    if (constant && constant->dtype() != DType::kI64) count += constant->size();
  }
  return count;
}

std::string node_line(const Graph& graph, const Node& node) {
  std::string line = fmt::format("  {} = {}(", node.name, name_of(node.op));
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    line += (i > 0 ? ", " : "") + input_text(graph, node.inputs[i]);
  }
  line += ")";
  std::string attributes;
  for (const auto& [name, value] : node.attrs.all()) {
    attributes +=
        fmt::format("{}{}={}", attributes.empty() ? "" : ", ", name, attribute_text(value));
  }
  if (!attributes.empty()) line += " {" + attributes + "}";
  line += " ->";
  for (const ValueId id : node.outputs) {
    if (id == kNoValue) line += " -";
    else line += fmt::format(" %{} {}", graph.value(id).name, type_text(graph.value(id)));
  }
  return line + "\n";
}

}  // namespace

std::string print(const Graph& graph) {
  std::string text = fmt::format("graph \"{}\" (opset {}): {} nodes, {} parameters\n", graph.name,
                                 graph.opset, graph.order().size(), parameter_count(graph));
  for (const ValueId id : graph.inputs) {
    text += fmt::format("  input %{} {}\n", graph.value(id).name, type_text(graph.value(id)));
  }
  for (const NodeId id : graph.order()) text += node_line(graph, graph.node(id));
  for (const ValueId id : graph.outputs) {
    text += fmt::format("  output %{} {}\n", graph.value(id).name, type_text(graph.value(id)));
  }
  return text;
}

}  // namespace repquant
