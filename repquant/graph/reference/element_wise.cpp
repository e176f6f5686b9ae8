#include <algorithm>
#include <cmath>
#include <limits>

#include "repquant/graph/reference/kernels.h"

namespace repquant::reference {
namespace {

using UnaryFunction = double (*)(double);

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

double sign(double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : x; }

double round_even(double x) { return std::nearbyint(x); }

UnaryFunction unary_function(OpKind op) {
  switch (op) {
    case OpKind::kAbs: return [](double x) { return std::fabs(x); };
    case OpKind::kNeg: return [](double x) { return -x; };
    case OpKind::kSqrt: return [](double x) { return std::sqrt(x); };
    case OpKind::kErf: return [](double x) { return std::erf(x); };
    case OpKind::kTanh: return [](double x) { return std::tanh(x); };
    case OpKind::kSigmoid: return sigmoid;
    case OpKind::kExp: return [](double x) { return std::exp(x); };
    case OpKind::kLog: return [](double x) { return std::log(x); };
    case OpKind::kReciprocal: return [](double x) { return 1.0 / x; };
    case OpKind::kFloor: return [](double x) { return std::floor(x); };
    case OpKind::kCeil: return [](double x) { return std::ceil(x); };
    case OpKind::kRound: return round_even;
    case OpKind::kSign: return sign;
    case OpKind::kCos: return [](double x) { return std::cos(x); };
    case OpKind::kSin: return [](double x) { return std::sin(x); };
    case OpKind::kRelu: return [](double x) { return x < 0 ? 0.0 : x; };
    case OpKind::kSilu: return [](double x) { return x * sigmoid(x); };
    case OpKind::kHardSwish:
      return [](double x) { return x * std::clamp(x / 6 + 0.5, 0.0, 1.0); };
    case OpKind::kSoftplus: return [](double x) { return std::log1p(std::exp(x)); };
    default: return nullptr;
  }
}

double gelu_erf(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }

double gelu_tanh(double x) {
  const double inner = std::sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x);
  return 0.5 * x * (1.0 + std::tanh(inner));
}

Outputs unary(const Node& node, const Tensor& x) {
  UnaryFunction function = unary_function(node.op);
  if (node.op == OpKind::kGelu) {
    const std::string form = node.attrs.text("approximate", "none");
    if (form != "none" && form != "tanh") return std::nullopt;
    function = form == "tanh" ? gelu_tanh : gelu_erf;
  }
  if (node.op == OpKind::kSilu && node.attrs.real("alpha", 1.0F) != 1.0F) return std::nullopt;
  auto values = to_doubles(x);
  if (!function || !values || x.dtype() == DType::kBool) return std::nullopt;
  for (double& v : *values) v = function(v);
  return one(from_doubles(x.dtype(), x.shape(), *values));
}

Outputs logical_not(const Tensor& x) {
  if (x.dtype() != DType::kBool) return std::nullopt;
  auto values = *to_integers(x);
  for (int64_t& v : values) v = v == 0;
  return one(from_integers(DType::kBool, x.shape(), values));
}

// A type number of the ONNX specification; nullopt for types a tensor here cannot have.
std::optional<DType> dtype_from_onnx(int64_t number) {
  switch (number) {
    case 1: return DType::kF32;
    case 2: return DType::kU8;
    case 3: return DType::kI8;
    case 4: return DType::kU16;
    case 5: return DType::kI16;
    case 6: return DType::kI32;
    case 7: return DType::kI64;
    case 9: return DType::kBool;
    case 10: return DType::kF16;
    case 11: return DType::kF64;
    case 12: return DType::kU32;
    case 13: return DType::kU64;
    case 16: return DType::kBF16;
    default: return std::nullopt;
  }
}

Outputs cast_node(const Node& node, const Tensor& x) {
  const auto to = dtype_from_onnx(node.attrs.integer("to", 0));
  return to ? one(cast(x, *to)) : std::nullopt;
}

Outputs clip(Inputs inputs) {
  auto values = to_doubles(*inputs[0]);
  if (!values || !is_float(inputs[0]->dtype())) return std::nullopt;
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  for (const size_t i : {size_t{1}, size_t{2}}) {
    const Tensor* bound = input(inputs, i);
    if (!bound) continue;
    const auto value = to_doubles(*bound);
    if (!value || value->size() != 1) return std::nullopt;
    (i == 1 ? low : high) = value->front();
  }
  for (double& v : *values) v = std::min(std::max(v, low), high);
  return one(from_doubles(inputs[0]->dtype(), inputs[0]->shape(), *values));
}

std::optional<double> float_binary(OpKind op, double a, double b) {
  switch (op) {
    case OpKind::kAdd:
    case OpKind::kSum:
    case OpKind::kMean: return a + b;
    case OpKind::kSub: return a - b;
    case OpKind::kMul: return a * b;
    case OpKind::kDiv: return a / b;
    case OpKind::kPow: return std::pow(a, b);
    case OpKind::kMax: return std::isnan(a) || a > b ? a : b;
    case OpKind::kMin: return std::isnan(a) || a < b ? a : b;
    case OpKind::kMod: return std::fmod(a, b);
    default: return std::nullopt;
  }
}

int64_t wrapped(uint64_t value) { return static_cast<int64_t>(value); }

std::optional<int64_t> integer_divide(OpKind op, int64_t a, int64_t b, bool c_sign) {
  if (b == 0 || (a == INT64_MIN && b == -1)) return std::nullopt;
  if (op == OpKind::kDiv) return a / b;
  const int64_t rest = a % b;
  return !c_sign && rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

std::optional<int64_t> integer_binary(OpKind op, int64_t a, int64_t b, bool c_sign) {
  const auto ua = static_cast<uint64_t>(a), ub = static_cast<uint64_t>(b);
  switch (op) {
    case OpKind::kAdd:
    case OpKind::kSum: return wrapped(ua + ub);
    case OpKind::kSub: return wrapped(ua - ub);
    case OpKind::kMul: return wrapped(ua * ub);
    case OpKind::kDiv:
    case OpKind::kMod: return integer_divide(op, a, b, c_sign);
    case OpKind::kPow: {
      const double power = std::pow(static_cast<double>(a), static_cast<double>(b));
      if (!(std::fabs(power) < 9e18)) return std::nullopt;
      return static_cast<int64_t>(power);
    }
    case OpKind::kMax: return std::max(a, b);
    case OpKind::kMin: return std::min(a, b);
    default: return std::nullopt;
  }
}

template <class T> std::optional<bool> compare(OpKind op, T a, T b) {
  switch (op) {
    case OpKind::kEqual: return a == b;
    case OpKind::kGreater: return a > b;
    case OpKind::kGreaterOrEqual: return a >= b;
    case OpKind::kLess: return a < b;
    case OpKind::kLessOrEqual: return a <= b;
    case OpKind::kAnd: return a != T{0} && b != T{0};
    case OpKind::kOr: return a != T{0} || b != T{0};
    case OpKind::kXor: return (a != T{0}) != (b != T{0});
    default: return std::nullopt;
  }
}

bool is_comparison(OpKind op) { return compare<double>(op, 0, 0).has_value(); }

struct Pair {
  Tensor a, b;
};

std::optional<Pair> broadcast_pair(const Tensor& a, const Tensor& b) {
  const auto shape = broadcast(a.shape(), b.shape());
  if (!shape) return std::nullopt;
  auto x = expand_to(a, *shape), y = expand_to(b, *shape);
  if (!x || !y) return std::nullopt;
  return Pair{std::move(*x), std::move(*y)};
}

std::optional<Tensor> compare_tensors(OpKind op, const Pair& p) {
  std::vector<int64_t> out(static_cast<size_t>(p.a.size()));
  const auto ia = to_integers(p.a), ib = to_integers(p.b);
  const auto da = to_doubles(p.a), db = to_doubles(p.b);
  if (!da || !db) return std::nullopt;
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = ia && ib ? *compare((op), (*ia)[i], (*ib)[i]) : *compare(op, (*da)[i], (*db)[i]);
  }
  return from_integers(DType::kBool, p.a.shape(), out);
}

std::optional<Tensor> float_tensors(OpKind op, const Pair& p) {
  auto a = to_doubles(p.a);
  const auto b = to_doubles(p.b);
  if (!a || !b || !float_binary(op, 1, 1)) return std::nullopt;
  for (size_t i = 0; i < a->size(); ++i) (*a)[i] = *float_binary(op, (*a)[i], (*b)[i]);
  return from_doubles(p.a.dtype(), p.a.shape(), *a);
}

std::optional<Tensor> binary(const Node& node, const Tensor& a, const Tensor& b) {
  auto pair = broadcast_pair(a, b);
  if (!pair) return std::nullopt;
  if (is_comparison(node.op)) return compare_tensors(node.op, *pair);
  if (a.dtype() == DType::kBool) return std::nullopt;
  if (node.op != OpKind::kPow && a.dtype() != b.dtype()) return std::nullopt;
  if (is_float(a.dtype()) || is_float(b.dtype())) return float_tensors(node.op, *pair);
  auto x = to_integers(pair->a);
  const auto y = to_integers(pair->b);
  if (!x || !y) return std::nullopt;
  for (size_t i = 0; i < x->size(); ++i) {
    const auto value =
        integer_binary(node.op, (*x)[i], (*y)[i], node.attrs.integer("fmod", 0) != 0);
    if (!value) return std::nullopt;
    (*x)[i] = *value;
  }
  return from_integers(a.dtype(), pair->a.shape(), *x);
}

Outputs variadic(const Node& node, Inputs inputs) {
  Tensor sum = *inputs[0];
  for (size_t i = 1; i < inputs.size(); ++i) {
    auto next = inputs[i] ? binary(node, sum, *inputs[i]) : std::nullopt;
    if (!next) return std::nullopt;
    sum = std::move(*next);
  }
  if (node.op == OpKind::kMean) {
    auto values = to_doubles(sum);
    if (!values || !is_float(sum.dtype())) return std::nullopt;
    for (double& v : *values) v /= static_cast<double>(inputs.size());
    return one(from_doubles(sum.dtype(), sum.shape(), *values));
  }
  return one(std::move(sum));
}

Outputs where(Inputs inputs) {
  const Tensor *c = input(inputs, 0), *x = input(inputs, 1), *y = input(inputs, 2);
  if (!c || !x || !y || c->dtype() != DType::kBool || x->dtype() != y->dtype()) return std::nullopt;
  auto shape = broadcast(c->shape(), x->shape());
  if (shape) shape = broadcast(*shape, y->shape());
  if (!shape) return std::nullopt;
  const Tensor condition = *expand_to(*c, *shape), yes = *expand_to(*x, *shape);
  Tensor out = *expand_to(*y, *shape);
  const size_t width = size_of(out.dtype());
  const auto chosen = condition.as<bool>();
  for (size_t i = 0; i < chosen.size(); ++i) {
    if (!chosen[i]) continue;
    std::memcpy(static_cast<std::byte*>(out.data()) + i * width,
                static_cast<const std::byte*>(yes.data()) + i * width, width);
  }
  return one(std::move(out));
}

}   // namespace

Outputs element_wise(const Node& node, Inputs inputs) {
  const Tensor* x = input(inputs, 0);
  if (!x) return std::nullopt;
  switch (node.op) {
    case OpKind::kIdentity:
    case OpKind::kDropout: return one(*x);
    case OpKind::kNot: return logical_not(*x);
    case OpKind::kCast: return cast_node(node, *x);
    case OpKind::kCastLike:
      return input(inputs, 1) ? one(cast(*x, inputs[1]->dtype())) : std::nullopt;
    case OpKind::kClip: return clip(inputs);
    case OpKind::kWhere: return where(inputs);
    case OpKind::kAdd:
    case OpKind::kSub:
    case OpKind::kMul:
    case OpKind::kDiv:
    case OpKind::kPow:
    case OpKind::kMod:
    case OpKind::kMax:
    case OpKind::kMin:
    case OpKind::kMean:
    case OpKind::kSum:
    case OpKind::kEqual:
    case OpKind::kGreater:
    case OpKind::kGreaterOrEqual:
    case OpKind::kLess:
    case OpKind::kLessOrEqual:
    case OpKind::kAnd:
    case OpKind::kOr:
    case OpKind::kXor: return variadic(node, inputs);
    default: return unary(node, *x);
  }
}

}   // namespace repquant::reference
