#pragma once
// What an op's shape function sees and sets. Internal to graph/.
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "repquant/graph/dims.h"
#include "repquant/graph/graph.h"

namespace repquant {

// An element of a small integer or boolean tensor: a number, a dimension's symbol, or neither.
struct Element {
  bool known = false;
  int64_t value = 0;
  std::string symbol;
  bool operator==(const Element&) const = default;
};
Element element_of(const Dim& dim);
Dim dim_of(const Element& element);     // negative numbers are unknown

struct IntTensor {                      // rank 0 or 1
  bool scalar = false;
  std::vector<Element> elements;
};

struct InferState {
  explicit InferState(const Graph& graph);
  const Graph& graph;
  std::vector<std::optional<SymbolicShape>> shapes;
  std::vector<DType> dtypes;
  std::unordered_map<ValueId, IntTensor> integers;
};

class InferContext {
 public:
  InferContext(const Node& node, InferState& state) : node_(node), state_(state) {}

  const Node& node() const { return node_; }
  bool has(size_t input) const {
    return input < node_.inputs.size() && node_.inputs[input] != kNoValue;
  }
  size_t output_count() const { return node_.outputs.size(); }
  const SymbolicShape* shape(size_t input) const;            // nullptr: absent, or rank unknown
  DType dtype(size_t input) const;
  const IntTensor* integers(size_t input) const;             // nullptr: not followed
  std::optional<std::vector<int64_t>> numbers(size_t input) const;   // all known
  const Tensor* constant(size_t input) const;

  void set_dtype(size_t output, DType dtype);
  void set_shape(size_t output, SymbolicShape shape);
  void set_integers(size_t output, IntTensor integers);      // capped, so that they stay small

  int64_t axis(int64_t value, size_t rank) const;            // non-negative, or fails
  SymbolicShape broadcast_inputs(size_t first, size_t count, bool& known) const;
  [[noreturn]] void fail(const std::string& what) const;

 private:
  const Node& node_;
  InferState& state_;
};

using InferFunction = void (*)(InferContext&);
InferFunction infer_function(OpKind op);     // nullptr: outputs stay unknown

// The element type an ONNX type number names in a graph, where narrow floats are F32.
std::optional<DType> dtype_of_onnx(int64_t type);

}  // namespace repquant
