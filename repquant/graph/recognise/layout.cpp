#include "repquant/graph/recognise/layout.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "repquant/graph/reference/kernels.h"

namespace repquant::patterns {
namespace {

constexpr int64_t kMostElements = 1 << 24;

bool moves_data(OpKind op) {
  switch (op) {
    case OpKind::kReshape:
    case OpKind::kTranspose:
    case OpKind::kSqueeze:
    case OpKind::kUnsqueeze:
    case OpKind::kSlice:
    case OpKind::kSplit:
    case OpKind::kGather:
    case OpKind::kFlatten:
    case OpKind::kExpand:
    case OpKind::kTile:
    case OpKind::kIdentity: return true;
    default: return false;
  }
}

// Data is input 0 and everything else is constant.
bool is_view(const Matcher& m, const Node& node) {
  if (!moves_data(node.op) || m.constant(node.inputs[0])) return false;
  return std::all_of(node.inputs.begin() + 1, node.inputs.end(),
                     [&](ValueId id) { return id == kNoValue || m.constant(id); });
}

std::optional<double> factor_of(const Matcher& m, const Node& node) {
  if (node.op != OpKind::kMul && node.op != OpKind::kDiv) return std::nullopt;
  const auto operands = m.with_constant(node);
  const auto value = operands ? m.scalar(operands->constant) : std::nullopt;
  if (!value || *value == 0) return std::nullopt;
  return node.op == OpKind::kDiv ? 1.0 / *value : *value;
}

// An l2 norm of what lies on the last axis: its epsilon.
std::optional<double> l2_epsilon(const Node& node) {
  if (node.op != OpKind::kLpNorm || node.attrs.integer("p", 2) != 2 ||
      node.attrs.integer("axis", -1) != -1) {
    return std::nullopt;
  }
  const float epsilon = node.attrs.real("epsilon", 0);
  return epsilon > 0 ? std::optional<double>(epsilon) : std::nullopt;
}

struct Step {
  ValueId value;   // before it
  double factor;   // what it multiplies with; a view or norm: 1
  bool view;
  NodeId node;
  double epsilon;   // of a norm; else 0
};

std::vector<Step> steps_before(const Matcher& m, ValueId operand) {
  std::vector<Step> steps;
  for (ValueId at = operand; const Node* node = m.producer(at);) {
    const NodeId id = m.graph().value(at).producer;
    const auto factor = factor_of(m, *node);
    const auto epsilon = l2_epsilon(*node);
    if (factor) at = m.with_constant(*node)->value;
    else if (epsilon || is_view(m, *node)) at = node->inputs[0];
    else break;
    steps.push_back({at, factor.value_or(1.0), !factor && !epsilon, id, epsilon.value_or(0)});
    if (steps.size() > 24) break;
  }
  return steps;
}

Tensor positions(const Shape& shape) {
  Tensor tensor(DType::kI64, shape);
  const auto values = tensor.as<int64_t>();
  std::iota(values.begin(), values.end(), int64_t{0});
  return tensor;
}

// The operand's elements as positions in steps[from - 1].value (or in the operand itself: from 0).
std::optional<Tensor> run_views(Matcher& m, ValueId operand, const std::vector<Step>& steps,
                                size_t from) {
  const ValueId base = from == 0 ? operand : steps[from - 1].value;
  const auto shape = m.trial_shape(base);
  if (!shape || element_count(*shape) > kMostElements) return std::nullopt;
  Tensor current = positions(*shape);
  for (size_t i = from; i-- > 0;) {
    if (!steps[i].view) continue;
    const Node& node = m.graph().node(steps[i].node);
    std::vector<const Tensor*> inputs{&current};
    for (size_t k = 1; k < node.inputs.size(); ++k)
      inputs.push_back(node.inputs[k] == kNoValue ? nullptr : m.constant(node.inputs[k]));
    auto outputs = reference::evaluate_node(node, inputs);
    if (!outputs) return std::nullopt;
    const ValueId wanted = i == 0 ? operand : steps[i - 1].value;
    const auto which = std::find(node.outputs.begin(), node.outputs.end(), wanted);
    current = std::move((*outputs)[static_cast<size_t>(which - node.outputs.begin())]);
  }
  return current;
}

struct Sizes {
  int64_t lead = 1, heads = 1, tokens = 0, width = 0;
};

std::optional<Sizes> operand_sizes(const Shape& shape, Operand kind, bool head_axis) {
  const size_t rank = shape.size(), tail = head_axis ? 3 : 2;
  if (rank < tail) return std::nullopt;
  Sizes s;
  for (size_t d = 0; d + tail < rank; ++d) s.lead *= shape[d];
  if (head_axis) s.heads = shape[rank - 3];
  s.tokens = shape[rank - (kind == Operand::kRowsByHead ? 2 : 1)];
  s.width = shape[rank - (kind == Operand::kRowsByHead ? 1 : 2)];
  return s;
}

struct Strides {
  int64_t lead, head, token, channel, offset;
};

// Is every element where `strides` and groups of `repeat` heads put it?
bool lies_at(const Tensor& at, const Sizes& s, Operand kind, const Strides& strides,
             int64_t repeat) {
  const auto value = at.as<int64_t>();
  size_t i = 0;
  const bool rows = kind == Operand::kRowsByHead;
  const int64_t outer = rows ? s.tokens : s.width, inner = rows ? s.width : s.tokens;
  const int64_t outer_stride = rows ? strides.token : strides.channel;
  const int64_t inner_stride = rows ? strides.channel : strides.token;
  for (int64_t l = 0; l < s.lead; ++l) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t start = strides.offset + l * strides.lead + h / repeat * strides.head;
      for (int64_t a = 0; a < outer; ++a) {
        for (int64_t b = 0; b < inner; ++b) {
          if (value[i++] != start + a * outer_stride + b * inner_stride) return false;
        }
      }
    }
  }
  return true;
}

bool same_lead(const Shape& a, size_t a_tail, const Shape& b, size_t b_tail) {
  return a.size() - a_tail == b.size() - b_tail &&
         std::equal(a.begin(), a.end() - static_cast<ptrdiff_t>(a_tail), b.begin());
}

// How many operand heads share one head of the base: the smallest group that explains all elements.
std::optional<int64_t> find_repeat(const Tensor& at, const Sizes& s, Operand kind,
                                   const Strides& strides) {
  for (int64_t repeat = 1; repeat <= s.heads; ++repeat) {
    if (s.heads % repeat == 0 && lies_at(at, s, kind, strides, repeat)) return repeat;
  }
  return std::nullopt;
}

std::optional<Source> as_flat(const Tensor& at, const Shape& base, Operand kind, bool head_axis) {
  const auto s = operand_sizes(at.shape(), kind, head_axis);
  if (!s || base.size() < 2 || at.size() == 0 || !same_lead(at.shape(), head_axis ? 3 : 2, base, 2))
    return std::nullopt;
  const int64_t tokens = base[base.size() - 2], channels = base.back(),
                offset = at.as<int64_t>()[0];
  if (tokens != s->tokens || offset >= channels) return std::nullopt;
  const auto repeat = find_repeat(at, *s, kind, {tokens * channels, s->width, channels, 1, offset});
  if (!repeat || offset + s->heads / *repeat * s->width > channels) return std::nullopt;
  return Source{kNoValue, false, offset, channels, s->heads / *repeat, s->width, 1};
}

std::optional<Source> as_headed(const Tensor& at, const Shape& base, Operand kind, bool head_axis) {
  const auto s = operand_sizes(at.shape(), kind, head_axis);
  if (!s || !head_axis || base.size() < 3 || at.size() == 0 || !same_lead(at.shape(), 3, base, 3))
    return std::nullopt;
  const int64_t heads = base[base.size() - 3];
  if (base[base.size() - 2] != s->tokens || base.back() != s->width || heads == 0 ||
      s->heads % heads != 0) {
    return std::nullopt;
  }
  const int64_t head = s->tokens * s->width;
  const Strides strides{heads * head, head, s->width, 1, 0};
  if (!lies_at(at, *s, kind, strides, s->heads / heads)) return std::nullopt;
  return Source{kNoValue, true, 0, heads * s->width, heads, s->width, 1};
}

// The views between the operand and `base`, and what decides their effect.
std::string describe(Matcher& m, ValueId operand, const std::vector<Step>& steps, size_t from,
                     const Shape& base, Operand kind, bool head_axis) {
  std::string text = fmt::format("{} {} {}", to_string(base), static_cast<int>(kind), head_axis);
  for (size_t i = 0; i < from; ++i) {
    if (!steps[i].view) continue;
    const Node& node = m.graph().node(steps[i].node);
    const ValueId output = i == 0 ? operand : steps[i - 1].value;
    const auto which = std::find(node.outputs.begin(), node.outputs.end(), output);
    text += fmt::format("|{} {}", name_of(node.op), which - node.outputs.begin());
    for (const auto& [name, value] : node.attrs.all()) {
      text += fmt::format(" {}", name);
      if (const auto* number = std::get_if<int64_t>(&value)) text += fmt::format("{}", *number);
      if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) text += to_string(*list);
    }
    for (size_t k = 1; k < node.inputs.size(); ++k) {
      const Tensor* t = node.inputs[k] == kNoValue ? nullptr : m.constant(node.inputs[k]);
      if (t == nullptr) continue;
      text += fmt::format(":{}", to_string(t->shape()));
      text.append(static_cast<const char*>(t->data()), t->bytes());
    }
  }
  return text;
}

// Where the operand's elements lie in the base: flat or headed. Parts of equal structure are run
// once.
std::optional<Source> place(Matcher& m, ValueId operand, const std::vector<Step>& steps,
                            size_t from, const Shape& base, Operand kind, bool head_axis,
                            bool headed) {
  const std::string key = fmt::format(
      "{}|{}", describe(m, operand, steps, from, base, kind, head_axis), headed ? "headed" : "flat");
  const auto known = m.notes().find(key);
  if (known != m.notes().end()) {
    const std::vector<double>& n = known->second;
    if (n.empty()) return std::nullopt;
    const auto number = [&](size_t i) { return static_cast<int64_t>(n[i]); };
    return Source{kNoValue, headed, number(0), number(1), number(2), number(3), 1, 0};
  }
  const auto at = run_views(m, operand, steps, from);
  std::optional<Source> source;
  if (at)
    source = headed ? as_headed(*at, base, kind, head_axis) : as_flat(*at, base, kind, head_axis);
  std::vector<double>& note = m.notes()[key];
  if (source) {
    for (const int64_t v : {source->offset, source->channels, source->heads, source->width})
      note.push_back(static_cast<double>(v));
  }
  return source;
}

// Factors and norms between the operand and steps[from - 1].value. One norm at most, and no factor
// before it: its result would not show it, but for the sign. False: not so.
bool collect_factors(const std::vector<Step>& steps, size_t from, Source& source) {
  for (size_t i = 0; i < from; ++i) {
    if (source.epsilon > 0 && (steps[i].epsilon > 0 || steps[i].factor != 1)) return false;
    if (steps[i].epsilon > 0) source.epsilon = steps[i].epsilon;
    source.scale *= steps[i].factor;
  }
  return true;
}

}   // namespace

std::optional<Source> trace_source(Matcher& m, ValueId operand, Operand kind, bool head_axis) {
  const auto steps = steps_before(m, operand);
  for (const bool headed : {false, true}) {
    for (size_t from = steps.size() + 1; from-- > 0;) {
      const ValueId base = from == 0 ? operand : steps[from - 1].value;
      const SymbolicShape* rank = m.shape(base);
      const size_t wanted =
          m.shape(operand) ? m.shape(operand)->size() - (head_axis && !headed ? 1 : 0) : 0;
      if (!rank || rank->size() != wanted || (headed && !head_axis)) continue;
      const auto shape = m.trial_shape(base);
      if (!shape) continue;
      auto source = place(m, operand, steps, from, *shape, kind, head_axis, headed);
      if (!source || !collect_factors(steps, from, *source)) continue;
      source->base = base;
      return source;
    }
  }
  return std::nullopt;
}

std::optional<Merged> merged_heads(Matcher& m, ValueId result, bool head_axis) {
  if (!head_axis) return Merged{result, true};
  const auto start = m.trial_shape(result);
  if (!start || start->size() < 3 || element_count(*start) > kMostElements) return std::nullopt;
  const auto s = operand_sizes(*start, Operand::kRowsByHead, true);
  Shape wanted(start->begin(), start->end() - 3);
  wanted.insert(wanted.end(), {s->tokens, s->heads * s->width});
  Tensor current = positions(*start);
  const std::vector<int64_t> strides{s->heads * s->tokens * s->width, s->width,
                                     s->tokens * s->width, 1};
  const Tensor order =
      reference::strided_copy(current, {s->lead, s->tokens, s->heads, s->width},
                              std::vector<int64_t>{strides[0], strides[1], strides[2], 1}, 0);
  std::optional<Merged> best;
  for (ValueId at = result; m.read_once(at);) {
    const Node& node = m.graph().node(m.readers(at)[0]);
    if (!is_view(m, node) || node.outputs.size() != 1) break;
    std::vector<const Tensor*> inputs{&current};
    for (size_t k = 1; k < node.inputs.size(); ++k)
      inputs.push_back(node.inputs[k] == kNoValue ? nullptr : m.constant(node.inputs[k]));
    auto outputs = reference::evaluate_node(node, inputs);
    if (!outputs) break;
    current = std::move(outputs->front());
    at = node.outputs[0];
    if (current.bytes() != order.bytes() ||
        std::memcmp(current.data(), order.data(), order.bytes()) != 0)
      continue;
    const bool exact = current.shape() == wanted;
    if (exact) return Merged{at, true};
    if (!best && node.op == OpKind::kReshape) best = Merged{at, false};
  }
  return best;
}

}   // namespace repquant::patterns
