#pragma once
// A float model as a DAG. Nodes and values are named by ids that stay valid across edits; `order()` is
// a topological order. Constants (weights, shapes, tables) are values that hold a tensor.
//
// Composite ops, made by graph/recognise from what exporters write:
//   linear                x [.., K], weight [N, K], bias [N] (may be absent) -> [.., N];   y = x W^T + b
//   layer_norm            x, gamma [C], beta [C] (may be absent); attrs epsilon (float), axis = -1
//   rms_norm              x, gamma [C], beta [C] (may be absent; not in ONNX); attrs epsilon, axis = -1
//   gelu                  x; attr approximate: "none" or "tanh"
//   silu                  x;  x * sigmoid(x)
//   clip                  x, min, max: scalars, or (not in ONNX) tensors that broadcast to x
//   multi_head_attention  q [.., T, H*d], k [.., S, KV*d], v [.., S, KV*dv], bias/mask (may be absent,
//                         added to the scores, broadcast to [.., H, T, S]) -> [.., T, H*dv];
//                         attrs heads = H, kv_heads = KV, scale (float; scores = scale * q k^T), causal,
//                         head_scale (floats [H], may be absent; one more factor a head)
//   lp_norm               ONNX LpNormalization; with attr epsilon: x / max(norm, epsilon)
//   batch_norm            never survives recognition: folded into conv/linear, or into mul and add
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "repquant/core/tensor.h"

namespace repquant {

enum class OpKind : int {
#define REPQUANT_OP(name, text, onnx) k##name,
#include "repquant/graph/ops.def"
#undef REPQUANT_OP
};
std::string_view name_of(OpKind op);                              // "layer_norm"
std::optional<OpKind> op_from_onnx(std::string_view onnx_name);   // "LayerNormalization"
const std::vector<std::string>& supported_onnx_ops();             // sorted

using ValueId = int32_t;
using NodeId = int32_t;
inline constexpr ValueId kNoValue = -1;   // an optional input that is absent

// One dimension: a known size, or a symbol ("batch"), or unknown (size -1, empty symbol).
struct Dim {
  int64_t size = -1;
  std::string symbol;
  bool known() const { return size >= 0; }
  bool operator==(const Dim&) const = default;
};
using SymbolicShape = std::vector<Dim>;
std::string to_string(const SymbolicShape& shape);                // "[batch, 197, 192]"

using AttrValue = std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>,
                               Tensor>;
class Attrs {
 public:
  void set(const std::string& name, AttrValue value) { values_[name] = std::move(value); }
  bool has(const std::string& name) const { return values_.count(name) > 0; }
  int64_t integer(const std::string& name, int64_t fallback) const;
  float real(const std::string& name, float fallback) const;
  std::string text(const std::string& name, const std::string& fallback) const;
  std::vector<int64_t> integers(const std::string& name, std::vector<int64_t> fallback = {}) const;
  std::vector<float> reals(const std::string& name) const;
  const Tensor* tensor(const std::string& name) const;            // nullptr when absent
  const std::map<std::string, AttrValue>& all() const { return values_; }

 private:
  std::map<std::string, AttrValue> values_;
};

struct Node {
  OpKind op = OpKind::kIdentity;
  std::string name;                                               // unique, "blocks.0.attn.qkv"
  std::vector<ValueId> inputs, outputs;
  Attrs attrs;
};

struct Value {
  std::string name;
  DType dtype = DType::kF32;
  std::optional<SymbolicShape> shape;                             // absent: rank unknown
  NodeId producer = -1;                                           // -1: graph input or constant
  std::optional<Tensor> constant;
};

class Graph {
 public:
  ValueId add_value(Value value);
  ValueId add_constant(const std::string& name, Tensor tensor);
  // Appends at the end of the order, or before node `before` when given. Outputs must be fresh values.
  NodeId add_node(Node node, NodeId before = -1);
  void remove_node(NodeId node);                                  // its outputs become undefined
  void replace_uses(ValueId from, ValueId to);                    // inputs of nodes and graph outputs

  const std::vector<NodeId>& order() const { return order_; }
  const Node& node(NodeId id) const;
  Node& node(NodeId id);
  bool alive(NodeId id) const;
  const Value& value(ValueId id) const;
  Value& value(ValueId id);
  size_t value_count() const { return values_.size(); }           // ids are 0 .. value_count()-1
  size_t node_capacity() const { return nodes_.size(); }
  std::vector<NodeId> consumers(ValueId id) const;                // in order, each once
  bool is_output(ValueId id) const;
  bool is_constant(ValueId id) const { return id >= 0 && value(id).constant.has_value(); }

  std::vector<ValueId> inputs, outputs;
  int64_t opset = 0;
  std::string name;

  void remove_dead();             // nodes without uses; unused constants keep their id, lose their tensor
  void sort();                    // restores a topological order, stable; throws kCorruptFile on a cycle
  // Every input defined before use, one producer a value, unique node names, known arity. kInternal.
  void verify() const;

 private:
  std::vector<std::optional<Node>> nodes_;
  std::vector<Value> values_;
  std::vector<NodeId> order_;
};

// Fills Value::shape and dtype of every node output from the inputs' (and constants'); unknown stays
// unknown. Throws kCorruptFile, naming the node, where shapes contradict the op.
void infer_shapes(Graph& graph);

// Human-readable listing, one line a node: name, op, inputs, shape, parameters.
std::string print(const Graph& graph);

}  // namespace repquant
