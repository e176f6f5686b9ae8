#pragma once
// Older forms of an op into the one of opset 23.
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "repquant/graph/graph.h"

namespace repquant::load {

// What the importer and the rewriters share: the graph, unique names, and rewrites that must wait
// for shapes.
struct Building {
  Graph graph;
  std::unordered_map<std::string, size_t> node_names, value_names;   // name -> next suffix
  std::vector<std::function<void(Building&)>> waiting;   // run in order once shapes are inferred

  std::string unique_node(const std::string& wanted);
  ValueId fresh_value(const std::string& wanted);
  ValueId integers(const std::string& wanted, const std::vector<int64_t>& values);  // constant [n]
};

// A node as the file has it, inputs and outputs resolved, before it enters the graph.
struct Draft {
  std::string type;        // "Softmax"
  int64_t opset = 0;       // of its domain
  Node node;
  std::string subject;     // node "x" (Softmax, opset 11), for messages
};

// Adds `draft` to the graph as one or more nodes; kUnsupported for what cannot be expressed.
void add_rewritten(Building& building, Draft draft);

// kUnsupported unless `type` of the main domain at `opset` is one this build knows.
void check_op_version(const std::string& type, int64_t opset, const std::string& subject);

inline constexpr int64_t kOldestOpset = 9, kNewestOpset = 23, kReadableOpset = 28;

}  // namespace repquant::load
