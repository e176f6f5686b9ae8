#pragma once
// Shorthand for tests that build graphs.
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "repquant/graph/graph.h"

namespace repquant::graph_testing {

inline Dim dim(int64_t size) { return Dim{size, {}}; }
inline Dim dim(int size) { return Dim{size, {}}; }
inline Dim dim(const char* symbol) { return Dim{-1, symbol}; }

struct GraphBuilder {
  Graph graph;

  ValueId input(const std::string& name, SymbolicShape shape, DType dtype = DType::kF32) {
    Value value;
    value.name = name;
    value.dtype = dtype;
    value.shape = std::move(shape);
    graph.inputs.push_back(graph.add_value(std::move(value)));
    return graph.inputs.back();
  }
  ValueId floats(const std::string& name, Shape shape, const std::vector<float>& values) {
    return graph.add_constant(name, Tensor::of<float>(std::move(shape), values));
  }
  ValueId integers(const std::vector<int64_t>& values) {
    return graph.add_constant(fmt::format("c{}", graph.value_count()),
                              Tensor::of<int64_t>({static_cast<int64_t>(values.size())}, values));
  }
  ValueId integer(int64_t value) {
    return graph.add_constant(fmt::format("c{}", graph.value_count()), Tensor::scalar(value));
  }
  std::vector<ValueId> nodes(OpKind op, std::vector<ValueId> inputs, size_t outputs,
                             Attrs attrs = {}, std::string name = {}) {
    Node node;
    node.op = op;
    node.name = name.empty() ? fmt::format("n{}", graph.node_capacity()) : std::move(name);
    node.inputs = std::move(inputs);
    node.attrs = std::move(attrs);
    for (size_t i = 0; i < outputs; ++i) {
      Value value;
      value.name = fmt::format("{}.{}", node.name, i);
      node.outputs.push_back(graph.add_value(std::move(value)));
    }
    const std::vector<ValueId> made = node.outputs;
    graph.add_node(std::move(node));
    return made;
  }
  ValueId node(OpKind op, std::vector<ValueId> inputs, Attrs attrs = {}, std::string name = {}) {
    return nodes(op, std::move(inputs), 1, std::move(attrs), std::move(name))[0];
  }
};

inline Attrs attributes(std::initializer_list<std::pair<std::string, AttrValue>> list) {
  Attrs attrs;
  for (const auto& [name, value] : list) attrs.set(name, value);
  return attrs;
}

inline std::string shape_text(const Graph& graph, ValueId id) {
  const auto& shape = graph.value(id).shape;
  return shape ? to_string(*shape) : "unknown";
}

// The repository, from where this header was when it was compiled.
inline std::filesystem::path repository() {
  return std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
}

// The folder of real models: REPQUANT_ASSETS, or ../shared/assets of the repository.
inline std::filesystem::path assets() {
  const char* given = std::getenv("REPQUANT_ASSETS");
  return given ? std::filesystem::path(given) : repository() / "../shared/assets";
}

}  // namespace repquant::graph_testing
