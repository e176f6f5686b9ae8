#pragma once
// The state of one call of lower(): what each graph value has become so far, and the step list.
// Internal to the folder.
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "repquant/core/plan_window.h"
#include "repquant/lower/code_format.h"
#include "repquant/lower/linear_weights.h"
#include "repquant/lower/lower.h"
#include "repquant/lower/plan_builder.h"
#include "repquant/lower/view.h"

namespace repquant::lowering {

// Who reads a value, looking through reshapes, slices and the like.
struct Demand {
  bool real = false;              // somebody needs f32
  std::vector<CodeFormat> codes;  // distinct
  // The one uniform format that serves every reader, if there is one.
  const CodeFormat* only_codes() const {
    const bool one = !real && codes.size() == 1 && codes[0].kind == CodeFormat::Kind::kUniform;
    return one ? &codes[0] : nullptr;
  }
};

struct Stored {
  int buffer = -1;
  View view;
};

// A function of one element: its step kind and parameters, and the exact function for tables.
struct Activation {
  std::string kind;
  std::vector<float> parameters;
  std::function<double(double)> function;
};
// Rows [begin, end) of a linear layer that is emitted where its result is used.
struct DeferredLinear {
  NodeId node = -1;
  int64_t begin = 0, end = 0;
};

// A function of every element of a buffer, emitted where it is used: into f32, or with the
// quantization behind it.
struct DeferredFunction {
  std::string name;  // of the node
  Stored source;     // f32
  Activation function;
};

// What a convolution adds to a product.
struct ProductForm {
  std::optional<Window> window;          // windows of an image instead of rows
  bool depthwise = false;                // of one channel
  std::optional<float> lowest, highest;  // clamp of the output, taken into its codes
};

// A value without its batch dimension, in every form that exists.
struct Lowered {
  Shape item;
  std::optional<Stored> real;
  std::vector<std::pair<CodeFormat, Stored>> codes;
  std::optional<Tensor> constant;  // equal for every image; shape = item
  std::optional<DeferredLinear> deferred;
  std::optional<DeferredFunction> function;
};

class Lowering {
 public:
  Lowering(const Graph& graph, const QuantPlan& plan, const LowerOptions& options);
  Plan run();

 private:
  // lowering.cpp: what is alive, who wants what, checks
  void find_live();
  void check_sites() const;
  Demand demand(ValueId value) const;
  void collect(ValueId value, Demand& demand) const;
  bool is_fixed(ValueId value) const;
  bool joins(const Node& node) const;  // a concat of variables
  void find_fused_adds();
  void emit_node(NodeId id);
  void emit_inputs();
  void finish();

  // values.cpp
  Lowered& at(ValueId value);
  Shape item_shape(ValueId value) const;  // from the graph's inferred shape
  CodeFormat site_format(NodeId node, int input) const;
  const Assignment& site(NodeId node, int input) const;
  int materialize(Stored& stored, const Shape& item, const std::string& name);
  void resolve(ValueId value);  // emits a layer or function that was put off
  Stored& function_codes(ValueId value, const CodeFormat& format);
  Stored& stored_real(ValueId value);  // in whatever order its buffer has
  Stored& stored_codes(ValueId value, const CodeFormat& format);
  int real(ValueId value);  // f32 buffer of the value's item shape
  int codes(ValueId value, const CodeFormat& format);
  // Images: item [C, H, W], kept as a buffer [H, W, C].
  static View channels_first_view(const Shape& item);
  bool channels_first(const Stored& stored, const Shape& item) const;
  int channels_last(Stored stored, const Shape& item, const std::string& name);
  int quantize(int buffer, const CodeFormat& format, const std::string& name,
               const Activation* function = nullptr);
  Lowered& define(ValueId value, Shape item);
  void define_real(ValueId value, int buffer);
  void define_codes(ValueId value, const CodeFormat& format, int buffer);
  const Tensor& constant(ValueId value, const Node& node, const std::string& what) const;
  std::vector<int64_t> constant_integers(ValueId value, const Node& node,
                                         const std::string& what) const;
  // Constant broadcast to an item: [C] where all rows agree, else the whole item.
  Tensor item_constant(ValueId value, const Shape& item, const Node& node) const;

  // movement.cpp
  void emit_alias(const Node& node);
  void emit_reshape(const Node& node);
  void emit_transpose(const Node& node);
  void emit_slice(const Node& node);
  void emit_gather(const Node& node);
  void emit_split(const Node& node);
  void emit_expand(const Node& node);
  void emit_concat(const Node& node);
  void emit_prepend(const Node& node);
  int join(std::vector<int> parts, int64_t axis, const std::string& name,
           const std::string& buffer);
  struct Range {
    int64_t axis, start, stop, step;  // axis of the item
  };
  void take(ValueId from, const Range& range, ValueId to, const Shape& item,
            const std::string& name);

  // layers.cpp
  void emit_linear(NodeId id);
  void emit_conv(NodeId id);
  void emit_patch_embedding(NodeId id);
  void emit_clip(NodeId id);
  void emit_pad(const Node& node);
  // A pad of zeros around images that only convolutions read: part of their windows.
  struct Pads {
    ValueId source;
    int64_t top, left, bottom, right;
  };
  std::optional<Pads> folded_pad(const Node& node) const;
  // The value a convolution writes: its own, or that of the only reader, a clamp.
  struct Clamped {
    ValueId to;
    ProductForm form;
  };
  Clamped clamped_output(NodeId id) const;
  bool takes_residual(NodeId id) const;  // a product that can add f32 values to its own
  bool is_image(ValueId value);
  void emit_convolution(NodeId id, Clamped output, ValueId residual);
  LinearWeights layer_weights(NodeId id) const;
  void emit_rows(const DeferredLinear& rows, ValueId to, ValueId residual);
  // The product into `to`, whose buffer has the item shape `item`; residual: a buffer, -1: none.
  void emit_product(const LinearWeights& weights, int input, const CodeFormat& format, ValueId to,
                    const Shape& item, int residual, const std::string& name,
                    const ProductForm& form = {});
  void emit_norm(NodeId id);
  void emit_group_norm(NodeId id);
  void emit_activation(NodeId id);
  void emit_add(NodeId id);
  bool keeps_shape(const Node& node, ValueId variable);
  void emit_multiply(NodeId id);
  void emit_mean(NodeId id);

  // floats.cpp
  Tensor broadcast_constant(ValueId value, size_t rank, const Node& node) const;
  void emit_binary(NodeId id);
  int add_function(int source, const Activation& function, const std::string& name,
                   const std::string& buffer);
  void emit_pow(const Node& node);
  void emit_reduce(NodeId id);
  int permuted(ValueId value, const std::vector<int>& order, const std::string& name);
  bool is_integer(ValueId value);  // an integer input, or one of its readings
  void emit_lookup(const Node& node);
  void emit_cast(const Node& node);

  // images.cpp
  void emit_pool(NodeId id);
  void emit_rearranged(const Node& node, const Shape& factors, const std::vector<int>& perm,
                       const Shape& item);
  void emit_depth_to_space(const Node& node);  // and back
  void emit_resize(const Node& node);

  // attention.cpp
  void emit_attention(NodeId id);
  Tensor score_constant(const Node& node, int64_t windows, int64_t heads, int64_t tokens) const;
  void add_score_terms(const Node& node, Step& step, int64_t windows, int64_t heads,
                       int64_t tokens);

  // rows.cpp
  int real_rows(ValueId value);
  int code_rows(ValueId value, const CodeFormat& format);
  bool stays_float(NodeId id) const;
  void emit_float_linear(NodeId id);
  void emit_matmul(const Node& node);
  void emit_softmax(const Node& node);
  void emit_l2_norm(const Node& node);
  void emit_repeat(const Node& node);
  bool is_gathered(ValueId value) const;
  bool move_rows(ValueId from, ValueId to, const Shape& item,
                 const std::function<View(const View&, const Shape&)>& move);
  bool take_rows(ValueId from, const Range& range, ValueId to, const Shape& item);
  bool join_rows(const Node& node);

  [[noreturn]] void refuse(const Node& node, const std::string& reason,
                           const std::string& hint = {}) const;

  const Graph& graph_;
  const QuantPlan& plan_;
  const LowerOptions& options_;
  PlanBuilder builder_;
  std::vector<bool> live_;  // by NodeId
  std::map<ValueId, Lowered> values_;
  std::map<NodeId, NodeId> fused_add_;  // linear -> the add it ends in
};

bool is_movement(OpKind op);
bool is_reduction(OpKind op);
Tensor channels_moved_last(const Tensor& tensor);  // f32 [C, H, W] -> [H, W, C]
// Inputs that carry data, not shapes: all but the first are parameters of movement ops.
size_t data_inputs(const Node& node);
std::optional<Activation> activation_of(const Node& node);  // nullopt for other ops
std::string quoted(const Node& node);                       // linear "blocks.0.mlp.fc1"

}  // namespace repquant::lowering
