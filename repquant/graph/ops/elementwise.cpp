#include <algorithm>

#include "repquant/graph/ops/shape_functions.h"

namespace repquant::shapes {
namespace {

bool integer_type(DType dtype) {
  return dtype == DType::kI64 || dtype == DType::kI32 || dtype == DType::kBool;
}

Element of_number(int64_t value) { return {true, value, {}}; }
Element of_dim(const Dim& dim) { return is_unknown(dim) ? Element{} : element_of(dim); }

std::optional<int64_t> compute(OpKind op, int64_t a, int64_t b) {
  switch (op) {
    case OpKind::kAdd: case OpKind::kSum: return checked_add(a, b);
    case OpKind::kSub: return checked_add(a, checked_mul(b, -1));
    case OpKind::kMul: return checked_mul(a, b);
    case OpKind::kMax: return std::max(a, b);
    case OpKind::kMin: return std::min(a, b);
    case OpKind::kDiv:   // ONNX integer division truncates
      if (b == 0 || (b == -1 && a == INT64_MIN)) return std::nullopt;
      return a / b;
    case OpKind::kMod:
      if (b == 0 || b == -1) return b == -1 ? std::optional<int64_t>(0) : std::nullopt;
      return ((a % b) != 0 && ((a % b) < 0) != (b < 0)) ? a % b + b : a % b;
    default: return std::nullopt;
  }
}

// Symbols stand for dimensions, so they are not negative.
Element combine(OpKind op, const Element& a, const Element& b) {
  if (a.known && b.known) {
    const auto value = compute(op, a.value, b.value);
    return value ? of_number(*value) : Element{};
  }
  const auto negative = [](const Element& e) { return e.known && e.value < 0; };
  const Dim left = dim_of(a), right = dim_of(b);
  switch (op) {
    case OpKind::kMul:
      return negative(a) || negative(b) ? Element{} : of_dim(multiply(left, right));
    case OpKind::kAdd: case OpKind::kSum:
      if (negative(a)) return of_dim(add(right, a.value));
      if (negative(b)) return of_dim(add(left, b.value));
      return of_dim(add(left, right));
    case OpKind::kSub:
      if (b.known && b.value != INT64_MIN) return of_dim(add(left, -b.value));
      return !a.known && !a.symbol.empty() && a == b ? of_number(0) : Element{};
    case OpKind::kDiv: {
      if (b.known && b.value > 0) return of_dim(floor_divide(left, b.value));
      const auto quotient = divide(left, right);
      return quotient ? of_dim(*quotient) : Element{};
    }
    default:
      return !a.symbol.empty() && a == b && (op == OpKind::kMax || op == OpKind::kMin) ? a
                                                                                       : Element{};
  }
}

Element truth(std::optional<bool> value) { return value ? of_number(*value) : Element{}; }

Element compared(OpKind op, const Element& a, const Element& b) {
  if (a.known && b.known) {
    switch (op) {
      case OpKind::kEqual: return truth(a.value == b.value);
      case OpKind::kGreater: return truth(a.value > b.value);
      case OpKind::kGreaterOrEqual: return truth(a.value >= b.value);
      case OpKind::kLess: return truth(a.value < b.value);
      case OpKind::kLessOrEqual: return truth(a.value <= b.value);
      case OpKind::kAnd: return truth(a.value && b.value);
      case OpKind::kOr: return truth(a.value || b.value);
      case OpKind::kXor: return truth((a.value != 0) != (b.value != 0));
      default: return {};
    }
  }
  if (op != OpKind::kEqual) return {};
  if (!a.symbol.empty() && a == b) return truth(true);
  const bool apart = (a.known && a.value < 0 && !b.symbol.empty()) ||
                     (b.known && b.value < 0 && !a.symbol.empty());
  return apart ? truth(false) : Element{};
}

// Element by element with stretching of single elements; nothing where lengths contradict.
template <class Function>
void combine_vectors(InferContext& c, const IntTensor& a, const IntTensor& b, Function function) {
  const size_t n = std::max(a.elements.size(), b.elements.size());
  if ((a.elements.size() != n && a.elements.size() != 1) ||
      (b.elements.size() != n && b.elements.size() != 1))
    return;
  if (a.elements.empty() || b.elements.empty()) return;
  IntTensor out{a.scalar && b.scalar, {}};
  for (size_t i = 0; i < n; ++i) {
    out.elements.push_back(function(a.elements[a.elements.size() == 1 ? 0 : i],
                                    b.elements[b.elements.size() == 1 ? 0 : i]));
  }
  c.set_integers(0, std::move(out));
}

void set_broadcast(InferContext& c) {
  bool known = false;
  SymbolicShape shape = c.broadcast_inputs(0, c.node().inputs.size(), known);
  if (known) c.set_shape(0, std::move(shape));
}

}  // namespace

void same(InferContext& c) {
  if (const auto* shape = c.shape(0)) c.set_shape(0, *shape);
  if (c.node().op == OpKind::kIdentity) {
    if (const auto* known = c.integers(0)) c.set_integers(0, *known);
  }
  if (c.node().op == OpKind::kNeg && c.integers(0)) {
    IntTensor out{c.integers(0)->scalar, {}};
    for (const Element& e : c.integers(0)->elements) {
      out.elements.push_back(e.known ? of_number(checked_mul(e.value, -1)) : Element{});
    }
    c.set_integers(0, std::move(out));
  }
}

void same_as_boolean(InferContext& c) {
  same(c);
  c.set_dtype(0, DType::kBool);
  if (c.node().op != OpKind::kNot || !c.integers(0)) return;
  IntTensor out{c.integers(0)->scalar, {}};
  for (const Element& e : c.integers(0)->elements)
    out.elements.push_back(e.known ? of_number(!e.value) : Element{});
  c.set_integers(0, std::move(out));
}

void variadic(InferContext& c) {
  set_broadcast(c);
  if (c.node().inputs.size() != 2 || !c.integers(0) || !c.integers(1)) return;
  combine_vectors(c, *c.integers(0), *c.integers(1),
                  [&](const Element& a, const Element& b) { return combine(c.node().op, a, b); });
}

void compare(InferContext& c) {
  c.set_dtype(0, DType::kBool);
  set_broadcast(c);
  if (!c.integers(0) || !c.integers(1)) return;
  combine_vectors(c, *c.integers(0), *c.integers(1),
                  [&](const Element& a, const Element& b) { return compared(c.node().op, a, b); });
}

void where(InferContext& c) {
  c.set_dtype(0, c.dtype(1));
  set_broadcast(c);
  const IntTensor *choice = c.integers(0), *yes = c.integers(1), *no = c.integers(2);
  if (!choice || !yes || !no) return;
  const size_t n = std::max({choice->elements.size(), yes->elements.size(), no->elements.size()});
  IntTensor out{choice->scalar && yes->scalar && no->scalar, {}};
  for (const IntTensor* t : {choice, yes, no}) {
    if (t->elements.size() != n && t->elements.size() != 1) return;
  }
  const auto at = [](const IntTensor& t, size_t i) {
    return t.elements[t.elements.size() == 1 ? 0 : i];
  };
  for (size_t i = 0; i < n; ++i) {
    const Element pick = at(*choice, i), a = at(*yes, i), b = at(*no, i);
    out.elements.push_back(pick.known ? (pick.value ? a : b) : a == b ? a : Element{});
  }
  c.set_integers(0, std::move(out));
}

void cast(InferContext& c) {
  if (const auto* shape = c.shape(0)) c.set_shape(0, *shape);
  const auto to = dtype_of_onnx(c.node().attrs.integer("to", 1));
  if (!to) c.fail("a cast to a number type");
  c.set_dtype(0, *to);
  if (!integer_type(*to) || !integer_type(c.dtype(0)) || !c.integers(0)) return;
  IntTensor out{c.integers(0)->scalar, {}};
  for (const Element& e : c.integers(0)->elements) {
    if (*to == DType::kBool) out.elements.push_back(e.known ? of_number(e.value != 0) : Element{});
    else if (*to == DType::kI32 && e.known && e.value != static_cast<int32_t>(e.value))
      out.elements.push_back({});
    else out.elements.push_back(e);
  }
  c.set_integers(0, std::move(out));
}

void cast_like(InferContext& c) {
  if (const auto* shape = c.shape(0)) c.set_shape(0, *shape);
  c.set_dtype(0, c.dtype(1));
}

void quantize(InferContext& c) {
  if (const auto* shape = c.shape(0)) c.set_shape(0, *shape);
  const auto named = dtype_of_onnx(c.node().attrs.integer("output_dtype", 2));
  c.set_dtype(0, c.has(2) ? c.dtype(2) : named.value_or(DType::kU8));
}

void dequantize(InferContext& c) {
  if (const auto* shape = c.shape(0)) c.set_shape(0, *shape);
  c.set_dtype(0, c.dtype(1));
}

void dynamic_quantize(InferContext& c) {
  if (const auto* shape = c.shape(0)) c.set_shape(0, *shape);
  c.set_shape(1, {});
  c.set_shape(2, {});
  c.set_dtype(0, DType::kU8);
  c.set_dtype(1, DType::kF32);
  c.set_dtype(2, DType::kU8);
}

void layer_norm(InferContext& c) {
  const auto* shape = c.shape(0);
  if (!shape) return;
  c.set_shape(0, *shape);
  if (shape->empty()) c.fail("an input with dimensions, got a scalar");
  const auto axis = static_cast<size_t>(c.axis(c.node().attrs.integer("axis", -1), shape->size()));
  SymbolicShape statistics = *shape;
  std::fill(statistics.begin() + static_cast<int64_t>(axis), statistics.end(), known_dim(1));
  c.set_shape(1, statistics);
  c.set_shape(2, statistics);
  const auto* gamma = c.shape(1);
  if (gamma && gamma->size() == 1 && axis + 1 == shape->size() && (*gamma)[0].known() &&
      (*gamma)[0].size != 1 && !merge(shape->back(), (*gamma)[0])) {
    c.fail("a gain as long as the last axis, got " + to_string(*gamma) + " for " +
           to_string(*shape));
  }
}

}  // namespace repquant::shapes
