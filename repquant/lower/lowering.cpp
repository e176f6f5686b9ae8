#include "repquant/lower/lowering.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/lower/fuse_tables.h"
#include "repquant/lower/whole_items.h"

namespace repquant {

Plan lower(const Graph& graph, const QuantPlan& plan, const LowerOptions& options) {
  if (lowering::needs_batch_axis(graph))
    return lowering::Lowering(lowering::with_batch_axis(graph), plan, options).run();
  return lowering::Lowering(graph, plan, options).run();
}

namespace lowering {

bool is_movement(OpKind op) {
  switch (op) {
    case OpKind::kIdentity:
    case OpKind::kDropout:
    case OpKind::kReshape:
    case OpKind::kFlatten:
    case OpKind::kSqueeze:
    case OpKind::kUnsqueeze:
    case OpKind::kTranspose:
    case OpKind::kSlice:
    case OpKind::kGather:
    case OpKind::kSplit:
    case OpKind::kDepthToSpace:
    case OpKind::kSpaceToDepth:
    case OpKind::kMaxPool:
    case OpKind::kResize:
      return true;
    default:
      return false;
  }
}

size_t data_inputs(const Node& node) {
  switch (node.op) {
    case OpKind::kShape:
    case OpKind::kSize:
      return 0;
    case OpKind::kExpand:
    case OpKind::kTile:
    case OpKind::kPad:
    case OpKind::kClip:
    case OpKind::kPow:
      return 1;
    default:
      return is_movement(node.op) || is_reduction(node.op) ? 1 : node.inputs.size();
  }
}

std::string quoted(const Node& node) {
  return fmt::format("{} \"{}\"", name_of(node.op), node.name);
}

Lowering::Lowering(const Graph& graph, const QuantPlan& plan, const LowerOptions& options)
    : graph_(graph), plan_(plan), options_(options), live_(graph.node_capacity(), false) {}

void Lowering::refuse(const Node& node, const std::string& reason, const std::string& hint) const {
  throw Error(ErrorCode::kUnsupported, "lower: " + quoted(node) + ": " + reason, hint);
}

Plan Lowering::run() {
  find_live();
  check_sites();
  find_fused_adds();
  emit_inputs();
  for (const NodeId id : graph_.order()) {
    if (live_[static_cast<size_t>(id)]) emit_node(id);
  }
  finish();
  fuse_tables(builder_.plan());
  verify_plan(builder_.plan());
  return std::move(builder_.plan());
}

void Lowering::find_live() {
  std::vector<ValueId> pending = graph_.outputs;
  while (!pending.empty()) {
    const ValueId value = pending.back();
    pending.pop_back();
    if (value == kNoValue || graph_.is_constant(value)) continue;
    const NodeId producer = graph_.value(value).producer;
    if (producer < 0 || live_[static_cast<size_t>(producer)]) continue;
    live_[static_cast<size_t>(producer)] = true;
    const Node& node = graph_.node(producer);
    const size_t count = std::min(data_inputs(node), node.inputs.size());
    pending.insert(pending.end(), node.inputs.begin(),
                   node.inputs.begin() + static_cast<std::ptrdiff_t>(count));
    // A lookup reads its indices, a slice of a variable only its data.
    if (node.op == OpKind::kGather && graph_.is_constant(node.inputs[0]))
      pending.push_back(node.inputs.at(1));
  }
}

// Every site must be one that lowering reads, else a method's work would be dropped in silence.
void Lowering::check_sites() const {
  for (const auto& [site, assignment] : plan_.all()) {
    if (!graph_.alive(site.node) || !live_[static_cast<size_t>(site.node)]) continue;
    const Node& node = graph_.node(site.node);
    bool known = false;
    switch (node.op) {
      case OpKind::kLinear:
      case OpKind::kConv:
        known = site.input == 0 || site.input == 1;
        break;
      case OpKind::kMultiHeadAttention:
        known = (site.input >= 0 && site.input <= 2) || site.input == kProbabilities;
        break;
      default:
        known = activation_of(node).has_value() && site.input == 0;
    }
    if (!known)
      refuse(node, fmt::format("input {} is quantized, which no integer step of this op uses",
                               site.input));
  }
}

void Lowering::collect(ValueId value, Demand& demand) const {
  if (graph_.is_output(value)) demand.real = true;
  for (const NodeId id : graph_.consumers(value)) {
    if (!live_[static_cast<size_t>(id)]) continue;
    const Node& node = graph_.node(id);
    const size_t count = std::min(data_inputs(node), node.inputs.size());
    for (size_t i = 0; i < count; ++i) {
      if (node.inputs[i] != value) continue;
      if (plan_.find({id, static_cast<int>(i)}) != nullptr) {
        CodeFormat format = site_format(id, static_cast<int>(i));
        if (std::find(demand.codes.begin(), demand.codes.end(), format) == demand.codes.end()) {
          demand.codes.push_back(std::move(format));
        }
      } else if (is_movement(node.op) || joins(node) || folded_pad(node)) {
        for (const ValueId out : node.outputs) collect(out, demand);
      } else {
        demand.real = true;
      }
    }
  }
}

// Equal for every image: a constant, expanded or read in another shape.
bool Lowering::is_fixed(ValueId value) const {
  if (value == kNoValue || graph_.is_constant(value)) return true;
  const NodeId producer = graph_.value(value).producer;
  if (producer < 0) return false;
  const Node& node = graph_.node(producer);
  return (node.op == OpKind::kExpand || is_movement(node.op)) && is_fixed(node.inputs[0]);
}

bool Lowering::joins(const Node& node) const {
  return node.op == OpKind::kConcat && std::none_of(node.inputs.begin(), node.inputs.end(),
                                                    [&](ValueId part) { return is_fixed(part); });
}

Demand Lowering::demand(ValueId value) const {
  Demand result;
  collect(value, result);
  return result;
}

// linear or convolution -> add where nobody else reads the product: the add becomes the residual
// operand. The layer is then emitted at the add, where the other operand exists.
void Lowering::find_fused_adds() {
  for (const NodeId id : graph_.order()) {
    const Node& node = graph_.node(id);
    if (!live_[static_cast<size_t>(id)] || node.op != OpKind::kAdd ||
        node.inputs[0] == node.inputs[1])
      continue;
    NodeId chosen = -1;
    for (size_t i = 0; i < 2; ++i) {
      const ValueId value = node.inputs[i];
      if (graph_.is_constant(value) || graph_.is_constant(node.inputs[1 - i])) continue;
      const NodeId producer = graph_.value(value).producer;
      if (producer < 0 || !takes_residual(producer) || stays_float(producer)) continue;
      if (graph_.consumers(value).size() != 1 || graph_.is_output(value)) continue;
      chosen = std::max(chosen, producer);
    }
    if (chosen >= 0) fused_add_[chosen] = id;
  }
}

void Lowering::emit_inputs() {
  for (const ValueId input : graph_.inputs) {
    const Value& value = graph_.value(input);
    const bool integer = value.dtype == DType::kI64 || value.dtype == DType::kI32;
    if (value.dtype != DType::kF32 && !integer) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("lower: input \"{}\": expected F32, I64 or I32, got {}", value.name,
                              name_of(value.dtype)));
    }
    const bool renamed = !options_.input_name.empty() && graph_.inputs.size() == 1;
    const Shape item = item_shape(input);
    const int buffer = builder_.add_buffer(renamed ? options_.input_name : value.name, value.dtype,
                                           item.empty() ? Shape{1} : item,
                                           static_cast<int>(8 * size_of(value.dtype)));
    builder_.plan().inputs.push_back(buffer);
    define(input, item).real = Stored{buffer, {}};
  }
}

void Lowering::finish() {
  Plan& plan = builder_.plan();
  for (const ValueId output : graph_.outputs) {
    const int buffer = real(output);
    builder_.plan().outputs.push_back(buffer);
  }
  plan.model = options_.model;
  plan.provenance = options_.provenance;
  plan.quality = nlohmann::json::object();
  plan.model["inputs"] = nlohmann::json::array();
  plan.model["outputs"] = nlohmann::json::array();
  for (const int i : plan.inputs) {
    plan.model["inputs"].push_back(
        {{"name", builder_.buffer(i).name}, {"shape", builder_.buffer(i).item_shape}});
    const DType dtype = builder_.buffer(i).dtype;
    if (dtype != DType::kF32) plan.model["inputs"].back()["dtype"] = name_of(dtype);
  }
  for (size_t i = 0; i < plan.outputs.size(); ++i) {
    plan.model["outputs"].push_back({{"name", graph_.value(graph_.outputs[i]).name},
                                     {"shape", builder_.buffer(plan.outputs[i]).item_shape}});
  }
}

void Lowering::emit_node(NodeId id) {
  const Node& node = graph_.node(id);
  switch (node.op) {
    case OpKind::kIdentity:
    case OpKind::kDropout:
      return emit_alias(node);
    case OpKind::kReshape:
    case OpKind::kFlatten:
    case OpKind::kSqueeze:
    case OpKind::kUnsqueeze:
      return emit_reshape(node);
    case OpKind::kTranspose:
      return emit_transpose(node);
    case OpKind::kSlice:
      return emit_slice(node);
    case OpKind::kGather:
      return graph_.is_constant(node.inputs[0]) ? emit_lookup(node) : emit_gather(node);
    case OpKind::kCast:
      return emit_cast(node);
    case OpKind::kMaxPool:
    case OpKind::kAveragePool:
      return emit_pool(id);
    case OpKind::kDepthToSpace:
    case OpKind::kSpaceToDepth:
      return emit_depth_to_space(node);
    case OpKind::kResize:
      return emit_resize(node);
    case OpKind::kGroupNorm:
    case OpKind::kInstanceNorm:
      return emit_group_norm(id);
    case OpKind::kPow:
      return emit_pow(node);
    case OpKind::kMax:
    case OpKind::kMin:
      return emit_binary(id);
    case OpKind::kSplit:
      return emit_split(node);
    case OpKind::kExpand:
      return emit_expand(node);
    case OpKind::kConcat:
      return emit_concat(node);
    case OpKind::kLinear:
      return emit_linear(id);
    case OpKind::kConv:
      return emit_conv(id);
    case OpKind::kClip:
      return emit_clip(id);
    case OpKind::kPad:
      return emit_pad(node);
    case OpKind::kLayerNorm:
    case OpKind::kRmsNorm:
      return emit_norm(id);
    case OpKind::kMultiHeadAttention:
      return emit_attention(id);
    case OpKind::kMatMul:
      return emit_matmul(node);
    case OpKind::kSoftmax:
      return emit_softmax(node);
    case OpKind::kLpNorm:
      return emit_l2_norm(node);
    case OpKind::kAdd:
    case OpKind::kSub:
      return emit_add(id);
    case OpKind::kMul:
    case OpKind::kDiv:
      return emit_multiply(id);
    case OpKind::kReduceMean:
      return emit_mean(id);
    default:
      break;
  }
  if (is_reduction(node.op)) return emit_reduce(id);
  if (activation_of(node)) return emit_activation(id);
  refuse(
      node, "this build has no integer or float step for the op",
      "supported: conv, linear, attention, norms, activations, functions of one element, "
      "add, sub, mul, div, max, min, reductions, pools, lookups, concat, pad, and moves of data");
}

}  // namespace lowering
}  // namespace repquant
