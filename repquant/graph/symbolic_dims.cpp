#include "repquant/graph/symbolic_dims.h"

#include <algorithm>

#include <fmt/format.h>

#include "repquant/graph/reference/kernels.h"
#include "repquant/graph/reference/reference.h"

namespace repquant {
namespace {

constexpr int64_t kLongestVector = 64;

DimElement element_of(const Dim& dim) {
  return dim.known() ? DimElement{true, dim.size, {}} : DimElement{false, 0, dim.symbol};
}

Dim dim_of(const DimElement& element) {
  return element.known ? Dim{element.value, {}} : Dim{-1, element.symbol};
}

bool keeps_shape(OpKind op) {
  switch (op) {
    case OpKind::kLayerNorm:
    case OpKind::kRmsNorm:
    case OpKind::kBatchNorm:
    case OpKind::kSoftmax:
    case OpKind::kLogSoftmax:
    case OpKind::kIdentity:
    case OpKind::kCast:
    case OpKind::kGelu:
    case OpKind::kSilu:
    case OpKind::kRelu:
    case OpKind::kLeakyRelu:
    case OpKind::kSigmoid:
    case OpKind::kTanh:
    case OpKind::kErf:
    case OpKind::kExp:
    case OpKind::kLog:
    case OpKind::kSqrt:
    case OpKind::kNeg:
    case OpKind::kReciprocal:
    case OpKind::kAbs:
    case OpKind::kHardSwish:
    case OpKind::kHardSigmoid:
    case OpKind::kClip:
    case OpKind::kDropout:
    case OpKind::kNot: return true;
    default: return false;
  }
}

bool broadcasts(OpKind op) {
  switch (op) {
    case OpKind::kAdd:
    case OpKind::kSub:
    case OpKind::kMul:
    case OpKind::kDiv:
    case OpKind::kPow:
    case OpKind::kWhere:
    case OpKind::kMax:
    case OpKind::kMin: return true;
    default: return false;
  }
}

Dim broadcast_dim(const Dim& a, const Dim& b) {
  if (a == b) return a;
  if (a.size == 1) return b;
  if (b.size == 1) return a;
  if (a.known()) return a;   // the other one is 1 or the same
  if (b.known()) return b;
  return {};
}

std::optional<DimVector> vector_of_constant(const Tensor& tensor) {
  if (tensor.rank() > 1 || tensor.size() > kLongestVector) return std::nullopt;
  if (!reference::is_integer(tensor.dtype()) && tensor.dtype() != DType::kBool) return std::nullopt;
  DimVector out{tensor.shape(), tensor.dtype(), {}};
  const auto values = reference::to_integers(tensor);
  if (!values) return std::nullopt;
  for (const int64_t v : *values) out.elements.push_back({true, v, {}});
  return out;
}

// Reads element `i` of an operand that is broadcast to `count` elements.
const DimElement& at(const DimVector& v, size_t i) {
  return v.elements.size() == 1 ? v.elements[0] : v.elements[i];
}

DimElement known(int64_t value) { return {true, value, {}}; }

DimElement arithmetic(OpKind op, const DimElement& a, const DimElement& b) {
  if (a.known && b.known) {
    switch (op) {
      case OpKind::kAdd: return known(a.value + b.value);
      case OpKind::kSub: return known(a.value - b.value);
      case OpKind::kMul: return known(a.value * b.value);
      case OpKind::kDiv: return b.value != 0 ? known(a.value / b.value) : DimElement{};
      case OpKind::kEqual: return known(a.value == b.value);
      case OpKind::kMax: return known(std::max(a.value, b.value));
      case OpKind::kMin: return known(std::min(a.value, b.value));
      default: return {};
    }
  }
  const auto is = [](const DimElement& e, int64_t v) { return e.known && e.value == v; };
  if (op == OpKind::kEqual && ((a.known && a.value < 0) || (b.known && b.value < 0))) {
    const DimElement& other = a.known ? b : a;   // a dimension is never negative
    return other.symbol.empty() ? DimElement{} : known(0);
  }
  if (op == OpKind::kMul && is(a, 1)) return b;
  if ((op == OpKind::kMul || op == OpKind::kDiv) && is(b, 1)) return a;
  if (op == OpKind::kAdd && is(a, 0)) return b;
  if ((op == OpKind::kAdd || op == OpKind::kSub) && is(b, 0)) return a;
  return {};
}

}   // namespace

bool DimVector::all_known() const {
  return std::all_of(elements.begin(), elements.end(), [](const DimElement& e) { return e.known; });
}

SymbolicDims::SymbolicDims(const Graph& graph)
    : graph_(graph), shapes_(graph.value_count()), vectors_(graph.value_count()) {
  for (size_t i = 0; i < graph.value_count(); ++i) {
    const auto id = static_cast<ValueId>(i);
    const Value& value = graph.value(id);
    if (value.constant) vectors_[i] = vector_of_constant(*value.constant);
    if (value.constant) {
      shapes_[i].emplace();
      for (const int64_t size : value.constant->shape()) shapes_[i]->push_back({size, {}});
    } else {
      shapes_[i] = value.shape;
    }
  }
  const auto name_unknown = [&](ValueId id) {
    auto& shape = shapes_[static_cast<size_t>(id)];
    for (size_t d = 0; shape && d < shape->size(); ++d) {
      Dim& dim = (*shape)[d];
      if (!dim.known() && dim.symbol.empty()) dim.symbol = fmt::format("#{}.{}", id, d);
    }
  };
  for (const ValueId id : graph.inputs) name_unknown(id);
  for (const NodeId id : graph.order()) {
    visit(graph.node(id));
    for (const ValueId output : graph.node(id).outputs) {
      if (output != kNoValue) name_unknown(output);
    }
  }
}

const SymbolicShape* SymbolicDims::shape(ValueId id) const {
  if (id < 0 || static_cast<size_t>(id) >= shapes_.size()) return nullptr;
  const auto& shape = shapes_[static_cast<size_t>(id)];
  return shape ? &*shape : nullptr;
}

const DimVector* SymbolicDims::vector(ValueId id) const {
  if (id < 0 || static_cast<size_t>(id) >= vectors_.size()) return nullptr;
  const auto& vector = vectors_[static_cast<size_t>(id)];
  return vector ? &*vector : nullptr;
}

void SymbolicDims::visit(const Node& node) {
  if (node.outputs.size() != 1 || node.outputs[0] == kNoValue) return;
  const auto out = static_cast<size_t>(node.outputs[0]);
  vectors_[out] = output_vector(node);
  auto better = output_shape(node);
  if (!better) return;
  auto& own = shapes_[out];
  if (!own) {
    own = std::move(better);
  } else if (own->size() == better->size()) {
    for (size_t d = 0; d < own->size(); ++d) {
      if (!(*own)[d].known() && ((*own)[d].symbol.empty() || (*better)[d].known()))
        (*own)[d] = (*better)[d];
    }
  }
}

std::optional<SymbolicShape> SymbolicDims::output_shape(const Node& node) const {
  const SymbolicShape* x = node.inputs.empty() ? nullptr : shape(node.inputs[0]);
  if (!x) return std::nullopt;
  if (keeps_shape(node.op)) return *x;
  if (node.op == OpKind::kReshape) return reshaped(node);
  if (node.op == OpKind::kLinear || node.op == OpKind::kMatMul) {
    const SymbolicShape* w = shape(node.inputs[1]);
    if (!w || w->size() != 2 || x->empty()) return std::nullopt;
    SymbolicShape out = *x;
    out.back() = (*w)[node.op == OpKind::kLinear ? 0 : 1];
    return out;
  }
  if (node.op == OpKind::kTranspose) {
    const auto perm = node.attrs.integers("perm");
    if (perm.size() != x->size()) return std::nullopt;
    SymbolicShape out;
    for (const int64_t p : perm) {
      if (p < 0 || p >= static_cast<int64_t>(x->size())) return std::nullopt;
      out.push_back((*x)[static_cast<size_t>(p)]);
    }
    return out;
  }
  if (!broadcasts(node.op)) return std::nullopt;
  SymbolicShape out;
  for (const ValueId input : node.inputs) {
    const SymbolicShape* next = shape(input);
    if (!next) return std::nullopt;
    while (out.size() < next->size()) out.insert(out.begin(), Dim{1, {}});
    for (size_t d = 0; d < next->size(); ++d) {
      Dim& dim = out[out.size() - 1 - d];
      dim = broadcast_dim(dim, (*next)[next->size() - 1 - d]);
    }
  }
  return out;
}

std::optional<SymbolicShape> SymbolicDims::reshaped(const Node& node) const {
  const DimVector* target = node.inputs.size() > 1 ? vector(node.inputs[1]) : nullptr;
  if (!target) return std::nullopt;
  return resolve_reshape(*shape(node.inputs[0]), target->elements,
                         node.attrs.integer("allowzero", 0) != 0);
}

std::optional<DimVector> SymbolicDims::output_vector(const Node& node) {
  if (node.op == OpKind::kShape && !node.inputs.empty()) {
    std::vector<DimElement> dims;
    if (const DimVector* v = vector(node.inputs[0])) {
      for (const int64_t size : v->shape) dims.push_back(known(size));
    } else if (const SymbolicShape* x = shape(node.inputs[0])) {
      for (const Dim& dim : *x) dims.push_back(element_of(dim));
    } else {
      return std::nullopt;
    }
    const auto rank = static_cast<int64_t>(dims.size());
    const auto clamp = [&](int64_t v) {
      return std::clamp<int64_t>(v < 0 ? v + rank : v, 0, rank);
    };
    const int64_t start = clamp(node.attrs.integer("start", 0));
    const int64_t end = std::max(start, clamp(node.attrs.integer("end", rank)));
    return DimVector{{end - start}, DType::kI64, {dims.begin() + start, dims.begin() + end}};
  }
  if (auto result = moved(node)) return result;
  return computed(node);
}

// Ops that only move elements: run on the positions of the elements instead of their values.
std::optional<DimVector> SymbolicDims::moved(const Node& node) {
  size_t data = 1;   // how many inputs, from the first, are data
  switch (node.op) {
    case OpKind::kConcat: data = node.inputs.size(); break;
    case OpKind::kGather:
    case OpKind::kSlice:
    case OpKind::kSqueeze:
    case OpKind::kUnsqueeze:
    case OpKind::kReshape:
    case OpKind::kIdentity:
    case OpKind::kCast:
    case OpKind::kExpand: break;
    default: return std::nullopt;
  }
  std::vector<DimElement> pool;
  std::vector<Tensor> tensors(node.inputs.size());
  std::vector<const Tensor*> inputs(node.inputs.size(), nullptr);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (node.inputs[i] == kNoValue) continue;
    const DimVector* v = vector(node.inputs[i]);
    if (!v || (i >= data && !v->all_known())) return std::nullopt;
    std::vector<int64_t> numbers;
    for (const DimElement& e : v->elements) {
      numbers.push_back(i < data ? static_cast<int64_t>(pool.size()) : e.value);
      if (i < data) pool.push_back(e);
    }
    tensors[i] = Tensor::of<int64_t>(v->shape, numbers);
    inputs[i] = &tensors[i];
  }
  Node mover = node;
  if (node.op == OpKind::kCast) mover.op = OpKind::kIdentity;
  const auto result = reference::evaluate_node(mover, inputs);
  if (!result || result->front().rank() > 1 || result->front().size() > kLongestVector)
    return std::nullopt;
  const Tensor& positions = result->front();
  DimVector out{positions.shape(), graph_.value(node.outputs[0]).dtype, {}};
  for (const int64_t p : positions.as<int64_t>())
    out.elements.push_back(pool[static_cast<size_t>(p)]);
  if (node.op != OpKind::kCast) {
    out.dtype = vector(node.inputs[0])->dtype;
  } else if (!reference::is_integer(out.dtype)) {
    return std::nullopt;
  }
  return out;
}

std::optional<DimVector> SymbolicDims::computed(const Node& node) const {
  std::vector<const DimVector*> in;
  size_t count = 1;
  Shape shape;
  for (const ValueId id : node.inputs) {
    const DimVector* v = vector(id);
    if (!v) return std::nullopt;
    in.push_back(v);
    if (v->shape.size() == 1)
      shape = {std::max<int64_t>(shape.empty() ? 1 : shape[0], v->shape[0])};
    count = std::max(count, v->elements.size());
  }
  for (const DimVector* v : in) {
    if (v->elements.size() != 1 && v->elements.size() != count) return std::nullopt;
  }
  DimVector out{shape, graph_.value(node.outputs[0]).dtype, {}};
  for (size_t i = 0; i < count; ++i) {
    if (node.op == OpKind::kWhere && in.size() == 3) {
      const DimElement& condition = at(*in[0], i);
      out.elements.push_back(!condition.known ? DimElement{}
                                              : at(*in[condition.value != 0 ? 1 : 2], i));
    } else if (in.size() == 2) {
      out.elements.push_back(arithmetic(node.op, at(*in[0], i), at(*in[1], i)));
    } else {
      return std::nullopt;
    }
  }
  out.dtype = node.op == OpKind::kEqual ? DType::kBool : in.back()->dtype;
  return out;
}

std::optional<SymbolicShape> resolve_reshape(const SymbolicShape& input,
                                             const std::vector<DimElement>& target,
                                             bool keep_zero) {
  SymbolicShape out;
  ptrdiff_t open = -1;
  for (size_t d = 0; d < target.size(); ++d) {
    const DimElement& e = target[d];
    if (!e.known && e.symbol.empty()) return std::nullopt;
    if (e.known && e.value == 0 && !keep_zero) {
      if (d >= input.size()) return std::nullopt;
      out.push_back(input[d]);
    } else if (e.known && e.value == -1) {
      if (open >= 0) return std::nullopt;
      open = static_cast<ptrdiff_t>(d);
      out.push_back({});
    } else if (e.known && e.value < 0) {
      return std::nullopt;
    } else {
      out.push_back(dim_of(e));
    }
  }
  if (open < 0) return out;
  int64_t above = 1, below = 1;
  std::vector<std::string> symbols;
  for (const Dim& dim : input) {
    if (dim.known()) above *= dim.size;
    else symbols.push_back(dim.symbol);
  }
  for (size_t d = 0; d < out.size(); ++d) {
    if (static_cast<ptrdiff_t>(d) == open) continue;
    if (out[d].known()) {
      below *= out[d].size;
      continue;
    }
    const auto it = std::find(symbols.begin(), symbols.end(), out[d].symbol);
    if (it == symbols.end()) return out;   // the open dimension stays without a name
    symbols.erase(it);
  }
  Dim& dim = out[static_cast<size_t>(open)];
  if (symbols.empty() && below > 0 && above % below == 0) dim.size = above / below;
  else if (symbols.size() == 1 && above == below) dim.symbol = symbols[0];
  return out;
}

}   // namespace repquant
