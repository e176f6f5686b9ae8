#include "repquant/graph/recognise/scalar_function.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace repquant::patterns {
namespace {

constexpr int kBefore = 8, kBehind = 6;
constexpr size_t kMostNodes = 24;
constexpr double kNear = 0.1;

bool is_element_wise(OpKind op) {
  switch (op) {
    case OpKind::kAdd:
    case OpKind::kSub:
    case OpKind::kMul:
    case OpKind::kDiv:
    case OpKind::kPow:
    case OpKind::kNeg:
    case OpKind::kErf:
    case OpKind::kTanh:
    case OpKind::kClip:
    case OpKind::kSigmoid:
    case OpKind::kExp:
    case OpKind::kReciprocal:
    case OpKind::kSqrt:
    case OpKind::kCast:
    case OpKind::kIdentity: return true;
    default: return false;
  }
}

// Non-constant values before `id`, nearest first.
void collect_before(const Matcher& m, ValueId id, int depth, std::vector<ValueId>& out) {
  if (std::find(out.begin(), out.end(), id) == out.end()) out.push_back(id);
  const Node* node = m.producer(id);
  if (depth == 0 || !node || !is_element_wise(node->op)) return;
  for (const ValueId input : node->inputs) {
    if (!m.constant(input)) collect_before(m, input, depth - 1, out);
  }
}

void collect_behind(const Matcher& m, ValueId id, int depth, std::vector<ValueId>& out) {
  if (depth == 0) return;
  for (const NodeId reader : m.readers(id)) {
    const Node& node = m.graph().node(reader);
    if (!is_element_wise(node.op)) continue;
    if (std::find(out.begin(), out.end(), node.outputs[0]) == out.end())
      out.push_back(node.outputs[0]);
    collect_behind(m, node.outputs[0], depth - 1, out);
  }
}

// The nodes from x to y if they make a function of one number.
std::optional<std::vector<NodeId>> function_part(const Matcher& m, ValueId x, ValueId y,
                                                 NodeId anchor) {
  const std::vector<ValueId> from{x}, to{y};
  const auto nodes = m.between(from, to);
  if (!nodes || nodes->size() > kMostNodes) return std::nullopt;
  const SymbolicShape* shape = m.shape(x);
  const int64_t rank = shape ? static_cast<int64_t>(shape->size()) : 0;
  bool reads_x = false, has_anchor = false;
  for (const NodeId id : *nodes) {
    const Node& node = m.graph().node(id);
    if (!is_element_wise(node.op)) return std::nullopt;
    has_anchor |= id == anchor;
    for (const ValueId input : node.inputs) {
      const Tensor* constant = m.constant(input);
      if (constant && (constant->size() != 1 || constant->rank() > rank)) return std::nullopt;
      if (!constant && input != x && !m.producer(input)) return std::nullopt;
      reads_x |= input == x;
    }
  }
  return reads_x && has_anchor ? nodes : std::nullopt;
}

// A clip that leaves the whole grid as it is says nothing of what lies beyond.
bool clips_at_both_ends(const Graph& graph, std::span<const NodeId> nodes,
                        const reference::Bindings& bindings) {
  return std::all_of(nodes.begin(), nodes.end(), [&](NodeId id) {
    const Node& node = graph.node(id);
    if (node.op != OpKind::kClip) return true;
    const Tensor &in = bindings.at(node.inputs[0]), &out = bindings.at(node.outputs[0]);
    if (in.dtype() != DType::kF32 || out.dtype() != DType::kF32) return false;
    const auto [low, high] = std::ranges::minmax(in.as<float>());
    const auto [least, most] = std::ranges::minmax(out.as<float>());
    return low < least && most < high;
  });
}

struct Best {
  double difference = INFINITY;
  std::string pattern;
};

bool try_part(Matcher& m, ValueId x, ValueId y, NodeId anchor,
              std::span<const ScalarTarget> targets, Best& best) {
  if (m.graph().value(x).dtype != m.graph().value(y).dtype) return false;
  const auto nodes = function_part(m, x, y, anchor);
  if (!nodes) return false;
  const Tensor grid = function_grid();
  reference::Bindings bindings;
  bindings[x] = grid;
  if (!reference::evaluate(m.graph(), *nodes, bindings)) return false;
  if (!clips_at_both_ends(m.graph(), *nodes, bindings)) return false;
  const Tensor* input = &grid;
  for (const ScalarTarget& target : targets) {
    const auto wanted =
        reference::evaluate_node(target.node, std::span<const Tensor* const>(&input, 1));
    if (!wanted) continue;
    const double d = relative_difference(bindings.at(y), wanted->front());
    if (d < best.difference) best = {d, target.pattern};
    if (!(d <= kTolerance)) continue;
    Node node = target.node;
    node.name = m.graph().node(anchor).name;
    node.inputs = {x};
    node.outputs = {y};
    const std::string subject = node.name;
    return m.apply({target.pattern, subject, {x}, {y}, {std::move(node)}, Sample::kFunction});
  }
  return false;
}

}   // namespace

void recognise_scalar_functions(Matcher& m, OpKind anchor_op,
                                std::span<const ScalarTarget> targets) {
  for (const NodeId anchor : std::vector<NodeId>(m.graph().order())) {
    // A function found before may have held this node, too.
    if (!m.graph().alive(anchor) || m.graph().node(anchor).op != anchor_op) continue;
    std::vector<ValueId> before, behind;
    collect_before(m, m.graph().node(anchor).inputs[0], kBefore, before);
    collect_behind(m, m.graph().node(anchor).outputs[0], kBehind, behind);
    Best best;
    bool done = false;
    for (const ValueId x : before) {
      for (const ValueId y : behind) {
        done = done || try_part(m, x, y, anchor, targets, best);
      }
    }
    if (!done && best.difference < kNear) {
      m.refuse(best.pattern, m.graph().node(anchor).name,
               fmt::format("relative difference {:.1e}", best.difference));
    }
  }
}

}   // namespace repquant::patterns
