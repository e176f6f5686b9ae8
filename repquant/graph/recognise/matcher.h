#pragma once
// What the recognisers share: looking around in a graph, and replacing a part of it after comparing the
// two numerically.
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "repquant/graph/graph.h"
#include "repquant/graph/recognise/recognise.h"
#include "repquant/graph/reference/reference.h"
#include "repquant/graph/symbolic_dims.h"

namespace repquant::patterns {

// How inputs are drawn for the comparison.
enum class Sample {
  kRows,       // leading dimensions are small; for parts that work row by row
  kShape,      // the shape of the graph; a free dimension gets a small size
  kFunction,   // one input, numbers from -9 to 9; for parts that are a function of one number
};

inline constexpr double kTolerance = 1e-5;
// max |a - b| / max |a|. NaN, or unlike element counts, give infinity.
double relative_difference(const Tensor& a, const Tensor& b);
Tensor function_grid();   // -9 .. 9 in steps that hit 0: where activations differ from their limits

struct Rewrite {
  std::string pattern;            // for the report
  std::string subject;            // the name of a node in it
  std::vector<ValueId> inputs;    // activations at which the replaced part begins
  std::vector<ValueId> outputs;   // written by the last of `nodes`, as by the replaced part
  std::vector<Node> nodes;        // in order; names may collide, they are made unique
  Sample sample = Sample::kRows;
  bool once = false;   // parts of equal structure are compared once
  Shape trial = {};    // not empty: the shape of the one input, instead of `sample`
};

class Matcher {
 public:
  Matcher(Graph& graph, RecogniseReport& report) : graph_(graph), report_(report) { refresh(); }

  Graph& graph() { return graph_; }
  const Graph& graph() const { return graph_; }
  void refresh();   // after edits that did not go through apply()

  const Node* producer(ValueId id) const;              // nullptr: graph input, constant, absent
  const Node* producer(ValueId id, OpKind op) const;   // only if it is of this op
  const std::vector<NodeId>& readers(ValueId id) const;
  bool read_once(ValueId id) const;   // one reader, and not a graph output
  const Tensor* constant(ValueId id) const;
  std::optional<double> scalar(ValueId id) const;   // of a constant with one element
  const SymbolicShape* shape(ValueId id) const { return dims_->shape(id); }
  std::optional<int64_t> last_dim(ValueId id) const;
  ValueId skip_casts(ValueId id) const;   // back over Cast nodes
  // A binary node's operands as (activation, constant), in either order. The op must commute, or the
  // constant come second.
  struct Operands {
    ValueId value, constant;
  };
  std::optional<Operands> with_constant(const Node& node) const;

  ValueId add_value(const std::string& name);   // fresh, f32
  ValueId add_constant(const std::string& name, Tensor tensor) {
    return graph_.add_constant(name, std::move(tensor));
  }
  // A tensor derived from constant `from` under `key`, made once: shared weights stay shared.
  template <class Make> ValueId derived(ValueId from, const std::string& key, Make make) {
    const auto [it, fresh] = derived_.try_emplace({from, key}, kNoValue);
    if (fresh || !graph_.is_constant(it->second)) it->second = make();   // unused ones are dropped
    return it->second;
  }

  // Compares and replaces. False: left alone, and noted in the report when it was a numerical refusal.
  bool apply(Rewrite rewrite);

  // What was found out about parts of equal structure, by a text that describes them.
  std::map<std::string, std::vector<double>>& notes() { return notes_; }

  void refuse(const std::string& pattern, const std::string& subject, const std::string& reason);

  // Sizes for the shape of a value in a trial run: free dimensions small, equal where symbols are
  // equal. `round` 0 and 1 give different sizes. nullopt: rank unknown.
  std::optional<Shape> trial_shape(ValueId id, int round = 0);
  // Nodes between `from` (and constants) and `to`, in an order to run them. nullopt: too many.
  std::optional<std::vector<NodeId>> between(std::span<const ValueId> from,
                                             std::span<const ValueId> to) const;

 private:
  bool agrees(const Rewrite& rewrite, const std::vector<NodeId>& replaced, std::string& reason);
  bool bind_inputs(const Rewrite& rewrite, const std::vector<NodeId>& replaced,
                   reference::Bindings& bindings);
  std::string signature(const Rewrite& rewrite, const std::vector<NodeId>& replaced);
  void commit(Rewrite& rewrite);
  std::string unique_name(const std::string& wanted) const;
  void name_node(NodeId id, const std::string& wanted);
  void index_node(NodeId id, bool add);

  Graph& graph_;
  RecogniseReport& report_;
  std::unique_ptr<SymbolicDims> dims_;
  std::vector<std::vector<NodeId>> readers_;
  std::set<std::string> names_;
  std::map<NodeId, std::string> wished_;   // names that were taken when a node was made
  std::map<std::pair<ValueId, std::string>, ValueId> derived_;
  std::map<std::string, int64_t> symbol_sizes_[2];
  std::set<std::string> agreed_;
  std::map<std::string, std::vector<double>> notes_;
};

// One pass a pattern family, each in the file of its name.
void recognise_linear(Matcher& m);
void recognise_layer_norm(Matcher& m);
void recognise_rms_norm(Matcher& m);
void recognise_gelu(Matcher& m);
void recognise_silu(Matcher& m);
void recognise_l2_norm(Matcher& m);
void recognise_attention(Matcher& m);

// Drops attributes that state a default; spells out axis, epsilon and approximate.
void canonical_attributes(Graph& graph);

}   // namespace repquant::patterns
