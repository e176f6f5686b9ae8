#pragma once
// What is known, without running a graph, of dimensions and of the small integer tensors that exporters
// compute from them (Shape, Gather, Concat, Cast, ...).
#include <optional>
#include <string>
#include <vector>

#include "repquant/graph/graph.h"

namespace repquant {

// One element of an integer tensor: a number, the size of a dimension, or neither.
struct DimElement {
  bool known = false;
  int64_t value = 0;    // when known; may be negative
  std::string symbol;   // when not known: the dimension it equals, or ""
  bool operator==(const DimElement&) const = default;
};

struct DimVector {
  Shape shape;   // rank 0 or 1
  DType dtype = DType::kI64;
  std::vector<DimElement> elements;
  bool all_known() const;
};

// A snapshot of one state of a graph. Reads Value::shape (infer_shapes first); a dimension that has
// neither size nor name gets a symbol of its own ("#3.1"), which travels through ops that keep
// dimensions, so that equal symbols mean equal sizes.
class SymbolicDims {
 public:
  explicit SymbolicDims(const Graph& graph);

  // nullptr: rank unknown. Every dimension that is not known has a symbol.
  const SymbolicShape* shape(ValueId id) const;
  // nullptr: not an integer or bool tensor of rank 0 or 1 that this analysis follows.
  const DimVector* vector(ValueId id) const;

 private:
  void visit(const Node& node);
  std::optional<SymbolicShape> output_shape(const Node& node) const;
  std::optional<DimVector> output_vector(const Node& node);
  std::optional<DimVector> moved(const Node& node);
  std::optional<DimVector> computed(const Node& node) const;
  std::optional<SymbolicShape> reshaped(const Node& node) const;

  const Graph& graph_;
  std::vector<std::optional<SymbolicShape>> shapes_;
  std::vector<std::optional<DimVector>> vectors_;
};

// Dimensions of a Reshape's output: `target` as Reshape reads it, with 0 copied from `input` and -1
// solved where symbols cancel. nullopt: an element of `target` is unknown or does not fit.
std::optional<SymbolicShape> resolve_reshape(const SymbolicShape& input,
                                             const std::vector<DimElement>& target, bool keep_zero);

}   // namespace repquant
