#include "repquant/graph/recognise/matcher.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include <fmt/format.h>

#include "repquant/graph/reference/kernels.h"

namespace repquant::patterns {
namespace {

constexpr size_t kMostNodes = 256;           // of a replaced part
constexpr int64_t kMostElements = 1 << 24;   // of a sampled input

// Rows of unlike size, so that constants added inside a root or a division show.
Tensor random_floats(const Shape& shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  Tensor tensor(DType::kF32, shape);
  const int64_t row = shape.empty() ? 1 : std::max<int64_t>(1, shape.back());
  auto values = tensor.as<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    const double unit = static_cast<double>(random() >> 11) * 0x1.0p-53;
    const bool small = (static_cast<int64_t>(i) / row) % 2 == 1;
    values[i] = static_cast<float>((unit * 4 - 1.7) * (small ? 2e-3 : 1.0));
  }
  return tensor;
}

std::optional<Tensor> sample(DType dtype, const Shape& shape, uint64_t seed) {
  if (element_count(shape) > kMostElements) return std::nullopt;
  const Tensor values = random_floats(shape, seed);
  if (dtype == DType::kF32) return values;
  auto doubles = *reference::to_doubles(values);
  if (!reference::is_float(dtype)) {
    for (double& v : doubles) v = v > 0 ? 1 : 0;
  }
  return reference::from_doubles(dtype, shape, doubles);
}

std::string attribute_text(const AttrValue& value) {
  if (const auto* v = std::get_if<int64_t>(&value)) return fmt::format("{}", *v);
  if (const auto* v = std::get_if<float>(&value)) return fmt::format("{}", *v);
  if (const auto* v = std::get_if<std::string>(&value)) return *v;
  std::string text;
  if (const auto* v = std::get_if<std::vector<int64_t>>(&value)) {
    for (const int64_t x : *v) text += fmt::format("{},", x);
  } else if (const auto* f = std::get_if<std::vector<float>>(&value)) {
    text = fmt::format("{} floats", f->size());  // weights, as in constant_text
  } else {
    text = to_string(std::get<Tensor>(value).shape());
  }
  return text;
}

// Axes and shapes say what is computed, vectors of floats are weights: they differ from layer to layer.
std::string constant_text(const Tensor& tensor) {
  std::string text = to_string(tensor.shape());
  if (tensor.size() > 8 || (tensor.size() > 1 && tensor.dtype() == DType::kF32)) return text;
  const auto values = reference::to_doubles(tensor);
  if (!values) return text;
  for (const double v : *values) text += fmt::format(",{}", v);
  return text;
}

}   // namespace

double relative_difference(const Tensor& a, const Tensor& b) {
  const auto x = reference::to_doubles(a), y = reference::to_doubles(b);
  if (!x || !y || x->size() != y->size()) return INFINITY;
  double worst = 0, peak = 0;
  for (size_t i = 0; i < x->size(); ++i) {
    if (std::isnan((*x)[i]) && std::isnan((*y)[i])) continue;
    if ((*x)[i] == (*y)[i] && std::isinf((*x)[i])) continue;
    const double difference = std::fabs((*x)[i] - (*y)[i]);
    if (!(difference <= 1e300)) return INFINITY;
    worst = std::fmax(worst, difference);
    peak = std::fmax(peak, std::fabs((*x)[i]));
  }
  return worst == 0 ? 0 : worst / peak;
}

Tensor function_grid() {
  std::vector<float> points;
  for (int i = -144; i <= 144; ++i) points.push_back(static_cast<float>(i) / 16.0F);
  return Tensor::of<float>({static_cast<int64_t>(points.size())}, points);
}

// ---- looking around ---------------------------------------------------------------------------------

void Matcher::refresh() {
  readers_.assign(graph_.value_count(), {});
  names_.clear();
  for (const NodeId id : graph_.order()) {
    index_node(id, true);
    names_.insert(graph_.node(id).name);
  }
  const auto wished = std::move(wished_);
  wished_.clear();
  for (const auto& [id, name] : wished) {   // the part that had the name is gone by now
    if (!graph_.alive(id)) continue;
    names_.erase(graph_.node(id).name);
    name_node(id, name);
  }
  dims_ = std::make_unique<SymbolicDims>(graph_);
}

void Matcher::index_node(NodeId id, bool add) {
  readers_.resize(graph_.value_count());
  for (const ValueId input : graph_.node(id).inputs) {
    if (input == kNoValue) continue;
    auto& list = readers_[static_cast<size_t>(input)];
    const auto at = std::find(list.begin(), list.end(), id);
    if (add && at == list.end()) list.push_back(id);
    if (!add && at != list.end()) list.erase(at);
  }
}

const Node* Matcher::producer(ValueId id) const {
  if (id == kNoValue || graph_.value(id).producer < 0) return nullptr;
  return &graph_.node(graph_.value(id).producer);
}

const Node* Matcher::producer(ValueId id, OpKind op) const {
  const Node* node = producer(id);
  return node && node->op == op ? node : nullptr;
}

const std::vector<NodeId>& Matcher::readers(ValueId id) const {
  static const std::vector<NodeId> kNone;
  return static_cast<size_t>(id) < readers_.size() ? readers_[static_cast<size_t>(id)] : kNone;
}

bool Matcher::read_once(ValueId id) const {
  return readers(id).size() == 1 && !graph_.is_output(id);
}

const Tensor* Matcher::constant(ValueId id) const {
  return graph_.is_constant(id) ? &*graph_.value(id).constant : nullptr;
}

std::optional<double> Matcher::scalar(ValueId id) const {
  const Tensor* tensor = constant(id);
  if (!tensor || tensor->size() != 1) return std::nullopt;
  const auto values = reference::to_doubles(*tensor);
  return values ? std::optional(values->front()) : std::nullopt;
}

std::optional<int64_t> Matcher::last_dim(ValueId id) const {
  const SymbolicShape* s = shape(id);
  if (!s || s->empty() || !s->back().known()) return std::nullopt;
  return s->back().size;
}

ValueId Matcher::skip_casts(ValueId id) const {
  while (const Node* node = producer(id, OpKind::kCast)) id = node->inputs[0];
  return id;
}

std::optional<Matcher::Operands> Matcher::with_constant(const Node& node) const {
  if (node.inputs.size() != 2) return std::nullopt;
  const bool first = graph_.is_constant(node.inputs[0]),
             second = graph_.is_constant(node.inputs[1]);
  if (second && !first) return Operands{node.inputs[0], node.inputs[1]};
  const bool commutes = node.op == OpKind::kAdd || node.op == OpKind::kMul;
  if (first && !second && commutes) return Operands{node.inputs[1], node.inputs[0]};
  return std::nullopt;
}

ValueId Matcher::add_value(const std::string& name) {
  Value value;
  value.name = name;
  return graph_.add_value(std::move(value));
}

void Matcher::refuse(const std::string& pattern, const std::string& subject,
                     const std::string& reason) {
  report_.refused.push_back(fmt::format("{} at \"{}\": {}", pattern, subject, reason));
}

// ---- comparing --------------------------------------------------------------------------------------

std::optional<Shape> Matcher::trial_shape(ValueId id, int round) {
  const SymbolicShape* symbolic = shape(id);
  if (!symbolic) return std::nullopt;
  Shape out;
  auto& sizes = symbol_sizes_[round];
  for (const Dim& dim : *symbolic) {
    if (dim.known()) {
      out.push_back(dim.size);
      continue;
    }
    const int64_t next = sizes.empty() ? 2 : 4 + 3 * round + static_cast<int64_t>(sizes.size());
    out.push_back(sizes.try_emplace(dim.symbol, next).first->second);
  }
  return out;
}

std::optional<std::vector<NodeId>> Matcher::between(std::span<const ValueId> from,
                                                    std::span<const ValueId> to) const {
  std::vector<NodeId> nodes;
  std::set<NodeId> seen;
  const std::function<bool(ValueId)> visit = [&](ValueId id) {
    if (id == kNoValue || std::find(from.begin(), from.end(), id) != from.end()) return true;
    const NodeId producer = graph_.value(id).producer;
    if (producer < 0 || !seen.insert(producer).second) return true;
    if (seen.size() > kMostNodes) return false;
    for (const ValueId input : graph_.node(producer).inputs) {
      if (!visit(input)) return false;
    }
    nodes.push_back(producer);
    return true;
  };
  for (const ValueId id : to) {
    if (!visit(id)) return std::nullopt;
  }
  return nodes;
}

bool Matcher::bind_inputs(const Rewrite& rewrite, const std::vector<NodeId>& replaced,
                          reference::Bindings& bindings) {
  if (!rewrite.trial.empty()) {
    REPQUANT_CHECK(rewrite.inputs.size() == 1);
    bindings[rewrite.inputs[0]] = random_floats(rewrite.trial, 1);
    return true;
  }
  if (rewrite.sample == Sample::kFunction) {
    for (const ValueId id : rewrite.inputs) bindings[id] = function_grid();
    return true;
  }
  std::vector<ValueId> wanted = rewrite.inputs;
  for (const NodeId id : replaced) {   // graph inputs whose shape the part asks for
    for (const ValueId input : graph_.node(id).inputs) {
      const bool is_input =
          std::find(graph_.inputs.begin(), graph_.inputs.end(), input) != graph_.inputs.end();
      if (is_input && std::find(wanted.begin(), wanted.end(), input) == wanted.end())
        wanted.push_back(input);
    }
  }
  uint64_t seed = 1;
  for (const ValueId id : wanted) {
    auto trial = trial_shape(id);
    if (rewrite.sample == Sample::kRows) {
      if (!trial || trial->empty()) return false;
      for (size_t d = 0; d + 1 < trial->size(); ++d) (*trial)[d] = d == 0 ? 4 : 1;
    }
    auto tensor = trial ? sample(graph_.value(id).dtype, *trial, seed++) : std::nullopt;
    if (!tensor) return false;
    bindings[id] = std::move(*tensor);
  }
  return true;
}

bool Matcher::agrees(const Rewrite& rewrite, const std::vector<NodeId>& replaced,
                     std::string& reason) {
  reference::Bindings inputs;
  if (!bind_inputs(rewrite, replaced, inputs)) {
    reason = "shapes are not known";
    return false;
  }
  std::vector<const Node*> old_nodes, new_nodes;
  for (const NodeId id : replaced) old_nodes.push_back(&graph_.node(id));
  for (const Node& node : rewrite.nodes) new_nodes.push_back(&node);
  reference::Bindings before = inputs, after = std::move(inputs);
  if (!reference::evaluate_widened(graph_, old_nodes, before)) {
    reason = "it cannot be evaluated";
    return false;
  }
  if (!reference::evaluate_widened(graph_, new_nodes, after)) {
    reason = "its replacement cannot be evaluated";
    return false;
  }
  for (const ValueId output : rewrite.outputs) {
    const bool alike = rewrite.sample == Sample::kFunction ||
                       before.at(output).shape() == after.at(output).shape();
    const double difference =
        alike ? relative_difference(before.at(output), after.at(output)) : INFINITY;
    if (!(difference <= kTolerance)) {
      reason = fmt::format("relative difference {:.1e}", difference);
      return false;
    }
  }
  return true;
}

std::string Matcher::signature(const Rewrite& rewrite, const std::vector<NodeId>& replaced) {
  std::string text = rewrite.pattern;
  std::map<ValueId, std::string> local;
  for (const ValueId id : rewrite.inputs) {
    const auto trial = trial_shape(id);
    local.emplace(id, fmt::format("i{}", local.size()));
    text += trial ? to_string(*trial) : "?";
  }
  const auto add = [&](const Node& node) {
    text += fmt::format(";{}", static_cast<int>(node.op));
    for (const auto& [name, value] : node.attrs.all())
      text += fmt::format("{}={} ", name, attribute_text(value));
    for (const ValueId id : node.inputs) {
      const auto it = local.find(id);
      const Tensor* tensor = id == kNoValue ? nullptr : constant(id);
      text += fmt::format(",{}", it != local.end() ? it->second
                                 : tensor          ? constant_text(*tensor)
                                                   : "-");
    }
    for (const ValueId id : node.outputs) local.emplace(id, fmt::format("v{}", local.size()));
  };
  for (const NodeId id : replaced) add(graph_.node(id));
  text += "|";
  for (const Node& node : rewrite.nodes) add(node);
  return text;
}

// ---- replacing --------------------------------------------------------------------------------------

std::string Matcher::unique_name(const std::string& wanted) const {
  std::string name = wanted;
  for (int i = 2; names_.count(name) > 0; ++i) name = fmt::format("{}.{}", wanted, i);
  return name;
}

void Matcher::name_node(NodeId id, const std::string& wanted) {
  Node& node = graph_.node(id);
  node.name = unique_name(wanted);
  names_.insert(node.name);
  if (node.name != wanted) wished_[id] = wanted;
}

bool Matcher::apply(Rewrite rewrite) {
  REPQUANT_CHECK(!rewrite.nodes.empty() && rewrite.nodes.back().outputs == rewrite.outputs);
  const auto replaced = between(rewrite.inputs, rewrite.outputs);
  if (!replaced || replaced->empty()) return false;
  const std::string key = rewrite.once ? signature(rewrite, *replaced) : std::string();
  if (!rewrite.once || !agreed_.count(key)) {
    std::string reason;
    if (!agrees(rewrite, *replaced, reason)) {
      refuse(rewrite.pattern, rewrite.subject, reason);
      return false;
    }
    if (rewrite.once) agreed_.insert(key);
  }
  commit(rewrite);
  auto& found = report_.found;
  const auto it = std::find_if(found.begin(), found.end(),
                               [&](const auto& f) { return f.first == rewrite.pattern; });
  if (it == found.end()) found.emplace_back(rewrite.pattern, 1);
  else ++it->second;
  return true;
}

// The first producer of the outputs turns into the last new node, so that everything stays in order.
void Matcher::commit(Rewrite& rewrite) {
  NodeId anchor = -1;
  std::vector<NodeId> producers;
  for (const ValueId output : rewrite.outputs) producers.push_back(graph_.value(output).producer);
  for (const NodeId id : graph_.order()) {
    if (anchor < 0 && std::find(producers.begin(), producers.end(), id) != producers.end())
      anchor = id;
  }
  for (size_t i = 0; i + 1 < rewrite.nodes.size(); ++i) {
    const std::string wanted = rewrite.nodes[i].name;
    const NodeId id = graph_.add_node(std::move(rewrite.nodes[i]), anchor);
    name_node(id, wanted);
    index_node(id, true);
  }
  for (const NodeId id : producers) {
    if (!graph_.alive(id)) continue;
    index_node(id, false);
    if (id != anchor) graph_.remove_node(id);
  }
  names_.erase(graph_.node(anchor).name);
  Node& last = rewrite.nodes.back();
  const std::string wanted = last.name;
  for (const ValueId output : last.outputs) graph_.value(output).producer = anchor;
  graph_.node(anchor) = std::move(last);
  name_node(anchor, wanted);
  index_node(anchor, true);
}

}   // namespace repquant::patterns
