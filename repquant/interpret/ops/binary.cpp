// Element-wise ops of two or more inputs, broadcast as numpy does. The wide unsigned types, for
// which ATen has few kernels, go through int64; wrap-around is the same modulo 2^n.
#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

using Function = at::Tensor (*)(const at::Tensor&, const at::Tensor&);

at::Tensor add(const at::Tensor& a, const at::Tensor& b) { return at::add(a, b); }
at::Tensor sub(const at::Tensor& a, const at::Tensor& b) { return at::sub(a, b); }
at::Tensor mul(const at::Tensor& a, const at::Tensor& b) { return at::mul(a, b); }
at::Tensor maximum(const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }
at::Tensor minimum(const at::Tensor& a, const at::Tensor& b) { return at::minimum(a, b); }

at::Tensor div(const at::Tensor& a, const at::Tensor& b) {
  return at::isIntegralType(a.scalar_type(), true) ? at::div(a, b, "trunc") : at::div(a, b);
}

at::Tensor arithmetic(Function function, const at::Tensor& a, const at::Tensor& b) {
  const at::ScalarType type = a.scalar_type();
  if (!is_unsigned_wide(type)) return function(a, b);
  return function(widened(a), widened(b)).to(type);
}

template <at::Tensor (*F)(const at::Tensor&, const at::Tensor&)>
Tensors arithmetic2(const Node& node, Inputs in) {
  return {arithmetic(F, required(node, in, 0), required(node, in, 1))};
}

template <at::Tensor (*F)(const at::Tensor&, const at::Tensor&)>
Tensors compare(const Node& node, Inputs in) {
  return {F(widened(required(node, in, 0)), widened(required(node, in, 1)))};
}

template <at::Tensor (*F)(const at::Tensor&, const at::Tensor&)>
Tensors fold(const Node& node, Inputs in) {
  at::Tensor result = required(node, in, 0);
  for (size_t i = 1; i < in.size(); ++i) result = arithmetic(F, result, required(node, in, i));
  return {result};
}

Tensors mean(const Node& node, Inputs in) {
  return {fold<add>(node, in)[0] / static_cast<double>(in.size())};
}

// The result has the type of the base. A lone exponent is passed as a number: squares and roots
// then have their own kernels.
Tensors pow(const Node& node, Inputs in) {
  const at::Tensor base = widened(required(node, in, 0));
  const at::Tensor exponent = widened(required(node, in, 1));
  const at::ScalarType type = in[0].scalar_type();
  if (exponent.numel() == 1 && exponent.dim() <= base.dim() && !exponent.requires_grad()) {
    return {at::pow(base, exponent.item()).to(type)};
  }
  return {at::pow(base, exponent).to(type)};
}

Tensors mod(const Node& node, Inputs in) {
  const bool truncated = node.attrs.integer("fmod", 0) != 0;
  const at::Tensor a = widened(required(node, in, 0)), b = widened(required(node, in, 1));
  return {(truncated ? at::fmod(a, b) : at::remainder(a, b)).to(in[0].scalar_type())};
}

Tensors bit_shift(const Node& node, Inputs in) {
  const std::string direction = node.attrs.text("direction", "");
  if (direction == "LEFT") return arithmetic2<at::bitwise_left_shift>(node, in);
  if (direction == "RIGHT") return arithmetic2<at::bitwise_right_shift>(node, in);
  malformed(node, "expected direction LEFT or RIGHT, got \"" + direction + "\"");
}

Tensors where(const Node& node, Inputs in) {
  const at::Tensor& a = required(node, in, 1);
  if (is_unsigned_wide(a.scalar_type())) {
    return {at::where(required(node, in, 0), widened(a), widened(required(node, in, 2)))
                .to(a.scalar_type())};
  }
  return {at::where(required(node, in, 0), a, required(node, in, 2))};
}

Tensors prelu(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  return {at::where(x < 0, x * required(node, in, 1), x)};
}

}  // namespace

OpFunction binary_op(OpKind op) {
  switch (op) {
    case OpKind::kAdd: return arithmetic2<add>;
    case OpKind::kSub: return arithmetic2<sub>;
    case OpKind::kMul: return arithmetic2<mul>;
    case OpKind::kDiv: return arithmetic2<div>;
    case OpKind::kPow: return pow;
    case OpKind::kMod: return mod;
    case OpKind::kMax: return fold<maximum>;
    case OpKind::kMin: return fold<minimum>;
    case OpKind::kSum: return fold<add>;
    case OpKind::kMean: return mean;
    case OpKind::kAnd: return compare<at::logical_and>;
    case OpKind::kOr: return compare<at::logical_or>;
    case OpKind::kXor: return compare<at::logical_xor>;
    case OpKind::kEqual: return compare<at::eq>;
    case OpKind::kGreater: return compare<at::gt>;
    case OpKind::kGreaterOrEqual: return compare<at::ge>;
    case OpKind::kLess: return compare<at::lt>;
    case OpKind::kLessOrEqual: return compare<at::le>;
    case OpKind::kBitShift: return bit_shift;
    case OpKind::kBitwiseAnd: return arithmetic2<at::bitwise_and>;
    case OpKind::kBitwiseOr: return arithmetic2<at::bitwise_or>;
    case OpKind::kBitwiseXor: return arithmetic2<at::bitwise_xor>;
    case OpKind::kWhere: return where;
    case OpKind::kPRelu: return prelu;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
