#include "repquant/lower/whole_items.h"

#include <set>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/lower/lowering.h"

namespace repquant::lowering {
namespace {

std::optional<Shape> known_shape(const Graph& graph, ValueId id) {
  const auto& symbolic = graph.value(id).shape;
  if (!symbolic) return std::nullopt;
  Shape shape;
  for (const Dim& dim : *symbolic) {
    if (!dim.known()) return std::nullopt;
    shape.push_back(dim.size);
  }
  return shape;
}

// Values that depend on an input.
std::set<ValueId> data_values(const Graph& graph) {
  std::set<ValueId> data(graph.inputs.begin(), graph.inputs.end());
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    for (const ValueId input : node.inputs) {
      if (!data.contains(input)) continue;
      data.insert(node.outputs.begin(), node.outputs.end());
      break;
    }
  }
  return data;
}

class Rewriter {
 public:
  explicit Rewriter(const Graph& graph) : graph_(graph), data_(data_values(graph)) {
    for (const ValueId id : data_) {
      if (const auto shape = known_shape(graph, id)) shapes_[id] = *shape;
    }
  }

  Graph run() {
    const std::vector<NodeId> order = graph_.order();
    for (const NodeId id : order) rewrite(id);
    for (const ValueId input : graph_.inputs) (*graph_.value(input).shape)[0] = {-1, "batch"};
    infer_shapes(graph_);
    return std::move(graph_);
  }

 private:
  [[noreturn]] void refuse(const Node& node, const std::string& reason) const {
    throw Error(ErrorCode::kUnsupported, "lower: " + quoted(node) + ": " + reason,
                "export the model with a free batch size");
  }
  const Shape& shape(ValueId id, const Node& node) const {
    const auto found = shapes_.find(id);
    if (found == shapes_.end())
      refuse(node, fmt::format("the shape of \"{}\" is not known", graph_.value(id).name));
    return found->second;
  }
  ValueId integers(const std::string& name, const std::vector<int64_t>& values) {
    return graph_.add_constant(name,
                               Tensor::of<int64_t>({static_cast<int64_t>(values.size())}, values));
  }
  std::vector<int64_t> constant(ValueId id, const Node& node) const {
    if (id == kNoValue || !graph_.is_constant(id)) refuse(node, "expected constant parameters");
    const Tensor& tensor = *graph_.value(id).constant;
    if (tensor.dtype() != DType::kI64) refuse(node, "expected parameters in I64");
    return {tensor.as<int64_t>().begin(), tensor.as<int64_t>().end()};
  }

  // The value with a batch axis in front of its leading one.
  ValueId with_axis(ValueId id, NodeId before) {
    if (shifted_.contains(id)) return id;
    const auto made = copies_.find(id);
    if (made != copies_.end()) return made->second;
    const Shape own = shape(id, graph_.node(before));
    Shape target{0};  // the batch, as it comes
    target.insert(target.end(), own.begin(), own.end());
    Value value;
    value.name = graph_.value(id).name + ".batch";
    const std::string name = value.name;
    const ValueId copy = graph_.add_value(std::move(value));
    graph_.add_node({OpKind::kReshape, name, {id, integers(name + ".shape", target)}, {copy}, {}},
                    before);
    shapes_[copy] = own;
    shifted_.insert(copy);
    return copies_[id] = copy;
  }

  void mark_outputs(const Node& node) {
    for (const ValueId output : node.outputs) shifted_.insert(output);
  }

  void rewrite(NodeId id) {
    const Node& node = graph_.node(id);
    if (node.inputs.empty() || !data_.contains(node.outputs.at(0))) return;
    switch (node.op) {
      case OpKind::kReshape:
      case OpKind::kFlatten:
      case OpKind::kSqueeze:
      case OpKind::kUnsqueeze:
        return reshape(id);
      case OpKind::kTranspose:
        return transpose(id);
      case OpKind::kExpand:
        return expand(id);
      case OpKind::kSlice:
        return parameter_axes(id, 3);
      case OpKind::kReduceMean:
      case OpKind::kReduceSum:
      case OpKind::kReduceMax:
      case OpKind::kReduceMin:
      case OpKind::kReduceL2:
      case OpKind::kReduceSumSquare:
        return node.attrs.has("axes") ? attribute_axes(id) : parameter_axes(id, 1);
      case OpKind::kConcat:
      case OpKind::kSplit:
      case OpKind::kGather:
        return one_axis(id, 0);
      case OpKind::kSoftmax:
      case OpKind::kLayerNorm:
      case OpKind::kRmsNorm:
      case OpKind::kLpNorm:
        return one_axis(id, -1);
      case OpKind::kConv:
      case OpKind::kConvTranspose:
      case OpKind::kMaxPool:
      case OpKind::kAveragePool:
      case OpKind::kGlobalAveragePool:
      case OpKind::kGlobalMaxPool:
      case OpKind::kDepthToSpace:
      case OpKind::kSpaceToDepth:
      case OpKind::kResize:
      case OpKind::kPad:
        if (shifted_.contains(node.inputs[0])) refuse(node, "expected one image at a time");
        return;
      default:
        return element_wise(id);
    }
  }

  void element_wise(NodeId id) {
    const Node& node = graph_.node(id);
    bool any = false;
    for (const ValueId input : node.inputs) any = any || shifted_.contains(input);
    if (any) mark_outputs(node);
  }

  // Any op that only changes the shape: a reshape to the known one.
  void reshape(NodeId id) {
    const ValueId out = graph_.node(id).outputs.at(0);
    Shape target = shape(out, graph_.node(id));
    if (target.empty() || target[0] != 1) {
      target.insert(target.begin(), 1);
      shifted_.insert(out);
    }
    target[0] = 0;  // the batch, as it comes
    const ValueId constant = integers(graph_.node(id).name + ".shape", target);
    Node& node = graph_.node(id);
    node.op = OpKind::kReshape;
    node.attrs = {};
    node.inputs = {node.inputs[0], constant};
  }

  void transpose(NodeId id) {
    std::vector<int64_t> perm = graph_.node(id).attrs.integers("perm");
    const size_t rank = shape(graph_.node(id).inputs[0], graph_.node(id)).size();
    for (size_t i = 0; perm.size() < rank; ++i) perm.push_back(static_cast<int64_t>(rank - 1 - i));
    const bool shifted = shifted_.contains(graph_.node(id).inputs[0]);
    if (!shifted && perm.at(0) == 0) return;
    const ValueId input = with_axis(graph_.node(id).inputs[0], id);
    for (int64_t& axis : perm) ++axis;
    perm.insert(perm.begin(), 0);
    Node& node = graph_.node(id);
    node.inputs[0] = input;
    node.attrs.set("perm", perm);
    mark_outputs(node);
  }

  void expand(NodeId id) {
    const ValueId out = graph_.node(id).outputs[0];
    Shape target = shape(out, graph_.node(id));
    if (shifted_.contains(graph_.node(id).inputs[0]) || target.empty() || target[0] != 1) {
      target.insert(target.begin(), 1);
      shifted_.insert(out);
    }
    const ValueId constant = integers(graph_.node(id).name + ".shape", target);
    graph_.node(id).inputs.at(1) = constant;
  }

  // Axes counted from the front move by one; where the leading axis itself is meant, it gets a
  // batch axis in front first. Returns true where the output has one.
  bool adapt(NodeId id, std::vector<int64_t>& axes) {
    bool shifted = false, leading = false;
    int64_t rank = 0;
    for (const ValueId input : graph_.node(id).inputs) {
      if (!data_.contains(input) && !shapes_.contains(input)) continue;
      shifted = shifted || shifted_.contains(input);
      rank = std::max(rank, static_cast<int64_t>(shape(input, graph_.node(id)).size()));
    }
    for (const int64_t axis : axes) leading = leading || axis == 0 || axis == -rank;
    if (!shifted && !leading) return false;
    for (size_t i = 0; i < graph_.node(id).inputs.size(); ++i) {
      const ValueId input = graph_.node(id).inputs[i];
      if (!data_.contains(input)) continue;
      const ValueId other = with_axis(input, id);
      graph_.node(id).inputs[i] = other;
    }
    for (int64_t& axis : axes) axis = axis < 0 ? axis : axis + 1;
    mark_outputs(graph_.node(id));
    return true;
  }

  void one_axis(NodeId id, int64_t missing) {
    std::vector<int64_t> axes{graph_.node(id).attrs.integer("axis", missing)};
    if (adapt(id, axes)) graph_.node(id).attrs.set("axis", axes[0]);
  }

  void attribute_axes(NodeId id) {
    std::vector<int64_t> axes = graph_.node(id).attrs.integers("axes");
    if (adapt(id, axes)) graph_.node(id).attrs.set("axes", axes);
  }

  void parameter_axes(NodeId id, size_t index) {
    const Node& node = graph_.node(id);
    if (node.inputs.size() <= index || node.inputs[index] == kNoValue)
      refuse(node, "expected axes to be given");
    std::vector<int64_t> axes = constant(node.inputs[index], node);
    if (!adapt(id, axes)) return;
    const ValueId replaced = integers(graph_.node(id).name + ".axes", axes);
    graph_.node(id).inputs[index] = replaced;
  }

  Graph graph_;
  std::set<ValueId> data_, shifted_;
  std::map<ValueId, Shape> shapes_;  // before the rewrite
  std::map<ValueId, ValueId> copies_;
};

}  // namespace

bool needs_batch_axis(const Graph& graph) {
  for (const ValueId input : graph.inputs) {
    const auto& shape = graph.value(input).shape;
    if (!shape || shape->empty() || (*shape)[0].size != 1) return false;
  }
  for (const ValueId id : data_values(graph)) {
    const auto& shape = graph.value(id).shape;
    if (shape && !shape->empty() && (*shape)[0].known() && (*shape)[0].size != 1) return true;
  }
  return false;
}

Graph with_batch_axis(const Graph& graph) { return Rewriter(graph).run(); }

}  // namespace repquant::lowering
