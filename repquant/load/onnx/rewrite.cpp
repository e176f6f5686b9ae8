#include "repquant/load/onnx/rewrite.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/format.h>

#include "repquant/graph/arity.h"
#include "repquant/load/onnx/messages.h"
#include "repquant/load/onnx/tensor.h"

namespace repquant::load {

// ---- names
// ------------------------------------------------------------------------------------------

namespace {

constexpr size_t kMaxName = 200;   // a long name inlined a thousand times would fill the memory

std::string unique_in(std::unordered_map<std::string, size_t>& taken, const std::string& given) {
  const std::string wanted = given.substr(0, kMaxName);
  const auto [it, fresh] = taken.emplace(wanted, 2);
  if (fresh) return wanted;
  for (size_t& next = it->second;;) {   // remembered, so that a thousand equal names stay cheap
    std::string name = fmt::format("{}_{}", wanted, next++);
    if (taken.emplace(name, 2).second) return name;
  }
}

}  // namespace

std::string Building::unique_node(const std::string& wanted) {
  return unique_in(node_names, wanted);
}

ValueId Building::fresh_value(const std::string& wanted) {
  Value value;
  value.name = unique_in(value_names, wanted);
  return graph.add_value(std::move(value));
}

ValueId Building::integers(const std::string& wanted, const std::vector<int64_t>& values) {
  return graph.add_constant(unique_in(value_names, wanted),
                            Tensor::of<int64_t>({static_cast<int64_t>(values.size())}, values));
}

// ---- the rewriters
// ----------------------------------------------------------------------------------

namespace {

NodeId emit(Building& b, OpKind op, const std::string& name, std::vector<ValueId> inputs,
            std::vector<ValueId> outputs, Attrs attrs = {}) {
  Node node;
  node.op = op;
  node.name = b.unique_node(name);
  node.inputs = std::move(inputs);
  node.outputs = std::move(outputs);
  node.attrs = std::move(attrs);
  return b.graph.add_node(std::move(node));
}

// A copy of the attributes without those named: they became inputs or lost their meaning.
Attrs without(const Attrs& attrs, std::initializer_list<std::string_view> names) {
  Attrs kept;
  for (const auto& [name, value] : attrs.all()) {
    if (std::find(names.begin(), names.end(), name) == names.end()) kept.set(name, value);
  }
  return kept;
}

void set_input(Node& node, size_t index, ValueId id) {
  if (node.inputs.size() <= index) node.inputs.resize(index + 1, kNoValue);
  node.inputs[index] = id;
}

const Tensor* constant_input(const Building& b, const Node& node, size_t index) {
  if (index >= node.inputs.size() || !b.graph.is_constant(node.inputs[index])) return nullptr;
  return &*b.graph.value(node.inputs[index]).constant;
}

void axes_to_input(Building& b, Draft& d) {
  if (!d.node.attrs.has("axes")) return;
  set_input(d.node, 1, b.integers(d.node.name + "/axes", d.node.attrs.integers("axes")));
  d.node.attrs = without(d.node.attrs, {"axes"});
}

void slice_to_inputs(Building& b, Draft& d) {
  const auto starts = d.node.attrs.integers("starts"), ends = d.node.attrs.integers("ends");
  set_input(d.node, 1, b.integers(d.node.name + "/starts", starts));
  set_input(d.node, 2, b.integers(d.node.name + "/ends", ends));
  if (d.node.attrs.has("axes")) {
    set_input(d.node, 3, b.integers(d.node.name + "/axes", d.node.attrs.integers("axes")));
  }
  d.node.attrs = without(d.node.attrs, {"starts", "ends", "axes"});
}

void clip_to_inputs(Building& b, Draft& d) {
  size_t index = 1;
  for (const char* name : {"min", "max"}) {
    if (d.node.attrs.has(name)) {
      const ValueId bound = b.fresh_value(d.node.name + "/" + name);
      b.graph.value(bound).shape = SymbolicShape{};
      b.graph.value(bound).constant = Tensor::scalar(d.node.attrs.real(name, 0));
      set_input(d.node, index, bound);
    }
    ++index;
  }
  d.node.attrs = without(d.node.attrs, {"min", "max"});
}

void pad_to_inputs(Building& b, Draft& d) {
  set_input(d.node, 1, b.integers(d.node.name + "/pads", d.node.attrs.integers("pads")));
  const float value = d.node.attrs.real("value", 0);
  if (value != 0) {
    const ValueId id = b.fresh_value(d.node.name + "/value");
    b.graph.value(id).shape = SymbolicShape{};
    b.graph.value(id).constant = Tensor::scalar(value);
    set_input(d.node, 2, id);
  }
  d.node.attrs = without(d.node.attrs, {"pads", "value"});
}

void split_to_inputs(Building& b, Draft& d) {
  if (d.opset < 13 && d.node.attrs.has("split")) {
    set_input(d.node, 1, b.integers(d.node.name + "/split", d.node.attrs.integers("split")));
    d.node.attrs = without(d.node.attrs, {"split"});
  }
  const bool sized = d.node.inputs.size() > 1 && d.node.inputs[1] != kNoValue;
  if (!sized && !d.node.attrs.has("num_outputs")) {
    d.node.attrs.set("num_outputs", static_cast<int64_t>(d.node.outputs.size()));
  }
}

void top_k_to_input(Building& b, Draft& d) {
  if (d.opset >= 10) return;
  set_input(d.node, 1, b.integers(d.node.name + "/k", {d.node.attrs.integer("k", 1)}));
  d.node.attrs = without(d.node.attrs, {"k"});
}

// Before opset 13 the input is seen as a matrix, cut before `axis`. On the last axis that is the
// same; otherwise flatten, normalise rows, and restore the shape.
void restore_flattened(Building& b, NodeId id) {
  Node& node = b.graph.node(id);
  const auto& shape = b.graph.value(node.inputs[0]).shape;
  const int64_t axis = node.attrs.integer("axis", 1);
  if (axis == -1 || (shape && axis == static_cast<int64_t>(shape->size()) - 1)) {
    node.attrs.set("axis", int64_t{-1});
    return;
  }
  const Node old = node;
  b.graph.remove_node(id);
  b.node_names.erase(old.name);
  const ValueId flat = b.fresh_value(old.name + "/flat"), rows = b.fresh_value(old.name + "/rows");
  const ValueId sizes = b.fresh_value(old.name + "/shape");
  Attrs cut, last;
  cut.set("axis", axis);
  last.set("axis", int64_t{-1});
  emit(b, OpKind::kFlatten, old.name + "/flatten", {old.inputs[0]}, {flat}, cut);
  emit(b, old.op, old.name, {flat}, {rows}, last);
  emit(b, OpKind::kShape, old.name + "/sizes", {old.inputs[0]}, {sizes});
  emit(b, OpKind::kReshape, old.name + "/restore", {rows, sizes}, old.outputs);
}

// Opset 18 has one scale and bias a group, 21 one a channel.
void spread_groups(Building& b, NodeId id, const std::string& subject) {
  Node& node = b.graph.node(id);
  const auto& shape = b.graph.value(node.inputs[0]).shape;
  const int64_t groups = node.attrs.integer("num_groups", 0);
  if (!shape || shape->size() < 2 || !(*shape)[1].known() || groups <= 0 ||
      (*shape)[1].size % groups != 0) {
    unsupported(subject + ": expected a known number of channels that its groups divide");
  }
  const int64_t each = (*shape)[1].size / groups, channels = (*shape)[1].size;
  const std::vector<ValueId> inputs = node.inputs;
  const std::string name = node.name;
  for (size_t i = 1; i < 3; ++i) {
    const ValueId column = b.fresh_value(name + "/column"), wide = b.fresh_value(name + "/wide");
    const ValueId full = b.fresh_value(name + "/channels");
    emit(b, OpKind::kReshape, name + "/as_column",
         {inputs[i], b.integers(name + "/groups", {groups, 1})}, {column});
    emit(b, OpKind::kExpand, name + "/spread",
         {column, b.integers(name + "/sizes", {groups, each})}, {wide});
    emit(b, OpKind::kReshape, name + "/as_row", {wide, b.integers(name + "/all", {channels})},
         {full});
    b.graph.node(id).inputs[i] = full;
  }
}

void resize_old(Building& b, Draft& d) {
  if (d.opset < 11 || d.type == "Upsample") {   // X, scales
    d.node.attrs.set("coordinate_transformation_mode", std::string("asymmetric"));
    d.node.attrs.set("nearest_mode", std::string("floor"));
    if (d.node.inputs.size() == 2) d.node.inputs = {d.node.inputs[0], kNoValue, d.node.inputs[1]};
  }
  // Opset 11 and 12 fill absent inputs with empty tensors.
  for (size_t i = 1; i < d.node.inputs.size(); ++i) {
    const Tensor* given = constant_input(b, d.node, i);
    if (given && given->size() == 0) d.node.inputs[i] = kNoValue;
  }
  while (d.node.inputs.size() > 1 && d.node.inputs.back() == kNoValue) d.node.inputs.pop_back();
}

void drop_spare_outputs(Draft& d, size_t kept) {
  while (d.node.outputs.size() > 1 && d.node.outputs.back() == kNoValue) d.node.outputs.pop_back();
  if (d.node.outputs.size() > kept) {
    unsupported(d.subject + ": expected the inference form, got training outputs",
                "export the model in eval mode");
  }
}

void batch_norm(Building&, Draft& d) {
  drop_spare_outputs(d, 1);
  if (d.node.attrs.integer("training_mode", 0) != 0) {
    unsupported(d.subject + ": expected inference, got training_mode 1",
                "export the model in eval mode");
  }
  d.node.attrs = without(d.node.attrs, {"training_mode", "momentum", "spatial"});
}

// Identity at inference; the mask, where it is read, is all true.
void dropout(Building& b, Draft& d) {
  if (d.node.inputs.size() > 2 && d.node.inputs[2] != kNoValue) {
    const Tensor* training = constant_input(b, d.node, 2);
    if (!training || training->dtype() != DType::kBool || training->size() != 1 ||
        training->as<bool>()[0]) {
      unsupported(d.subject + ": expected inference, got training mode",
                  "export the model in eval mode");
    }
  }
  if (d.node.outputs.size() > 1 && d.node.outputs[1] != kNoValue) {
    const ValueId sizes = b.fresh_value(d.node.name + "/sizes");
    Attrs filled;
    filled.set("value", Tensor::of<bool>({1}, std::array<bool, 1>{true}));
    emit(b, OpKind::kShape, d.node.name + "/shape", {d.node.inputs[0]}, {sizes});
    emit(b, OpKind::kConstantOfShape, d.node.name + "/mask", {sizes}, {d.node.outputs[1]}, filled);
  }
  d.node.op = OpKind::kIdentity;
  d.node.inputs.resize(1);
  d.node.outputs.resize(1);
  d.node.attrs = {};
}

// Swish(alpha) = x sigmoid(alpha x); silu is alpha 1.
void swish(Building& b, Draft& d) {
  const float alpha = d.node.attrs.real("alpha", 1);
  d.node.attrs = {};
  if (alpha == 1) return;
  const ValueId scale = b.fresh_value(d.node.name + "/alpha");
  b.graph.value(scale).shape = SymbolicShape{};
  b.graph.value(scale).constant = Tensor::scalar(alpha);
  const ValueId scaled = b.fresh_value(d.node.name + "/scaled"),
                gate = b.fresh_value(d.node.name + "/gate");
  emit(b, OpKind::kMul, d.node.name + "/scale", {d.node.inputs[0], scale}, {scaled});
  emit(b, OpKind::kSigmoid, d.node.name + "/sigmoid", {scaled}, {gate});
  d.node.op = OpKind::kMul;
  d.node.inputs = {d.node.inputs[0], gate};
}

void cast_target(Building&, Draft& d) {
  const int64_t to = d.node.attrs.integer("to", kFloat);
  if (to == kUint4 || to == kInt4)
    unsupported(d.subject + ": expected a cast to 8 bits or more, got a 4-bit type");
  const DType dtype = graph_type(static_cast<int>(std::clamp<int64_t>(to, 0, 1000)), d.subject);
  if (dtype == DType::kF32) d.node.attrs.set("to", int64_t{kFloat});   // narrow floats are widened
}

void attention(Building&, Draft& d) {
  if (d.node.inputs.size() > 6 && d.node.inputs[6] != kNoValue) {
    unsupported(d.subject + ": expected no padded key lengths (input 7)");
  }
}

void explicit_norm(Building&, Draft& d) {
  d.node.attrs.set("axis", d.node.attrs.integer("axis", -1));
  d.node.attrs.set("epsilon", d.node.attrs.real("epsilon", 1e-5f));
  d.node.attrs = without(d.node.attrs, {"stash_type"});
}

struct Rule {
  OpKind op;
  int64_t before;     // applies below this opset; 99: always
  void (*rewrite)(Building&, Draft&);
};

constexpr Rule kRules[] = {
    {OpKind::kSqueeze, 13, axes_to_input},
    {OpKind::kUnsqueeze, 13, axes_to_input},
    {OpKind::kReduceSum, 13, axes_to_input},
    {OpKind::kReduceL1, 18, axes_to_input},
    {OpKind::kReduceL2, 18, axes_to_input},
    {OpKind::kReduceLogSum, 18, axes_to_input},
    {OpKind::kReduceLogSumExp, 18, axes_to_input},
    {OpKind::kReduceMax, 18, axes_to_input},
    {OpKind::kReduceMean, 18, axes_to_input},
    {OpKind::kReduceMin, 18, axes_to_input},
    {OpKind::kReduceProd, 18, axes_to_input},
    {OpKind::kReduceSumSquare, 18, axes_to_input},
    {OpKind::kSlice, 10, slice_to_inputs},
    {OpKind::kClip, 11, clip_to_inputs},
    {OpKind::kPad, 11, pad_to_inputs},
    {OpKind::kSplit, 18, split_to_inputs},
    {OpKind::kTopK, 10, top_k_to_input},
    {OpKind::kResize, 99, resize_old},
    {OpKind::kBatchNorm, 99, batch_norm},
    {OpKind::kDropout, 99, dropout},
    {OpKind::kSilu, 99, swish},
    {OpKind::kCast, 99, cast_target},
    {OpKind::kOnnxAttention, 99, attention},
    {OpKind::kLayerNorm, 99, explicit_norm},
    {OpKind::kRmsNorm, 99, explicit_norm},
};

OpKind op_of(const std::string& type) {
  if (type == "Upsample") return OpKind::kResize;
  if (type == "Scatter") return OpKind::kScatterElements;
  return *op_from_onnx(type);
}

bool flattens(OpKind op) {
  return op == OpKind::kSoftmax || op == OpKind::kLogSoftmax || op == OpKind::kHardmax;
}

void check_arity(const Draft& d) {
  Arity arity = arity_of(d.node.op);
  // Inputs that older forms keep as attributes.
  if (d.node.op == OpKind::kSlice || d.node.op == OpKind::kPad || d.node.op == OpKind::kTopK ||
      d.node.op == OpKind::kUnsqueeze) {
    arity.min_inputs = 1;
  }
  const auto inputs = static_cast<int>(d.node.inputs.size()),
             outputs = static_cast<int>(d.node.outputs.size());
  bool complete = inputs >= arity.min_inputs && inputs <= arity.max_inputs && outputs >= 1;
  for (int i = 0; complete && i < arity.min_inputs; ++i) {
    complete = d.node.inputs[static_cast<size_t>(i)] != kNoValue;
  }
  if (!complete) {
    corrupt(fmt::format("{}: expected {} to {} inputs and an output, got {} and {}", d.subject,
                        arity.min_inputs, arity.max_inputs, inputs, outputs));
  }
}

}  // namespace

void add_rewritten(Building& b, Draft d) {
  d.node.op = op_of(d.type);
  const std::string wanted = d.node.name.empty()
      ? fmt::format("{}_{}", name_of(d.node.op), b.graph.node_capacity()) : d.node.name;
  d.node.name = b.unique_node(wanted);
  // Trailing absent inputs and outputs mean nothing.
  while (!d.node.inputs.empty() && d.node.inputs.back() == kNoValue) d.node.inputs.pop_back();
  while (d.node.outputs.size() > 1 && d.node.outputs.back() == kNoValue) d.node.outputs.pop_back();
  check_arity(d);
  for (const Rule& rule : kRules) {
    if (rule.op == d.node.op && d.opset < rule.before) rule.rewrite(b, d);
  }
  const Arity arity = arity_of(d.node.op);
  if (static_cast<int>(d.node.outputs.size()) > arity.max_outputs ||
      static_cast<int>(d.node.inputs.size()) < arity.min_inputs) {
    corrupt(d.subject + ": expected the inputs and outputs of its op, got others");
  }
  const bool flat = flattens(d.node.op) && d.opset < 13;
  const bool groups = d.node.op == OpKind::kGroupNorm && d.opset < 21;
  if (flat && !d.node.attrs.has("axis")) d.node.attrs.set("axis", int64_t{1});
  const NodeId id = b.graph.add_node(std::move(d.node));
  if (flat) b.waiting.push_back([id](Building& late) { restore_flattened(late, id); });
  if (groups)
    b.waiting.push_back(
        [id, subject = d.subject](Building& late) { spread_groups(late, id, subject); });
}

}  // namespace repquant::load
