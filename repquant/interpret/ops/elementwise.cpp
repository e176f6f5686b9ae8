// Element-wise ops of one input, and casts.
#include <limits>

#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

template <at::Tensor (*F)(const at::Tensor&)>
Tensors unary(const Node& node, Inputs in) {
  return {F(required(node, in, 0))};
}

Tensors identity(const Node& node, Inputs in) { return {required(node, in, 0)}; }

Tensors gelu(const Node& node, Inputs in) {
  return {at::gelu(required(node, in, 0), node.attrs.text("approximate", "none"))};
}

Tensors silu(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const float alpha = node.attrs.real("alpha", 1.0F);
  return {alpha == 1.0F ? at::silu(x) : x * at::sigmoid(x * alpha)};
}

Tensors relu(const Node& node, Inputs in) { return {at::relu(required(node, in, 0))}; }

Tensors celu(const Node& node, Inputs in) {
  return {at::celu(required(node, in, 0), node.attrs.real("alpha", 1.0F))};
}

Tensors elu(const Node& node, Inputs in) {
  return {at::elu(required(node, in, 0), node.attrs.real("alpha", 1.0F))};
}

Tensors selu(const Node& node, Inputs in) {
  const float alpha = node.attrs.real("alpha", 1.67326319217681884765625F);
  const float gamma = node.attrs.real("gamma", 1.05070102214813232421875F);
  return {at::elu(required(node, in, 0), alpha, gamma)};
}

Tensors hard_sigmoid(const Node& node, Inputs in) {
  const float alpha = node.attrs.real("alpha", 0.2F), beta = node.attrs.real("beta", 0.5F);
  return {(required(node, in, 0) * alpha + beta).clamp(0, 1)};
}

Tensors hard_swish(const Node& node, Inputs in) { return {at::hardswish(required(node, in, 0))}; }

Tensors leaky_relu(const Node& node, Inputs in) {
  return {at::leaky_relu(required(node, in, 0), node.attrs.real("alpha", 0.01F))};
}

Tensors thresholded_relu(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  return {at::where(x > node.attrs.real("alpha", 1.0F), x, at::zeros_like(x))};
}

Tensors shrink(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const float lambda = node.attrs.real("lambd", 0.5F), bias = node.attrs.real("bias", 0.0F);
  const at::Tensor zero = at::zeros_like(x);
  return {
      at::where(x < -lambda, x + bias, at::where(x > lambda, x - bias, zero)).to(x.scalar_type())};
}

Tensors softplus(const Node& node, Inputs in) { return {at::softplus(required(node, in, 0))}; }

Tensors softsign(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  return {x / (at::abs(x) + 1)};
}

Tensors is_inf(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const double infinity = std::numeric_limits<double>::infinity();
  at::Tensor result = at::zeros_like(x, x.options().dtype(at::kBool));
  if (node.attrs.integer("detect_positive", 1) != 0) result = result.logical_or(x == infinity);
  if (node.attrs.integer("detect_negative", 1) != 0) result = result.logical_or(x == -infinity);
  return {result};
}

Tensors round_half_even(const Node& node, Inputs in) { return {at::round(required(node, in, 0))}; }

Tensors clip(const Node& node, Inputs in) {
  const at::Tensor x = widened(required(node, in, 0));
  const bool one_a_channel = present(in, 1) && present(in, 2) && in[1].numel() * in[2].numel() > 1;
  if (one_a_channel) return {at::clamp(x, in[1], in[2])};
  std::optional<at::Scalar> low, high;
  if (present(in, 1)) low = widened(in[1]).item();
  else if (node.attrs.has("min")) low = node.attrs.real("min", 0.0F);
  if (present(in, 2)) high = widened(in[2]).item();
  else if (node.attrs.has("max")) high = node.attrs.real("max", 0.0F);
  if (!low && !high) return {in[0]};
  return {at::clamp(x, low, high).to(in[0].scalar_type())};
}

Tensors cast(const Node& node, Inputs in) {
  return {required(node, in, 0).to(dtype_of_onnx(node, node.attrs.integer("to", 1)))};
}

Tensors cast_like(const Node& node, Inputs in) {
  return {required(node, in, 0).to(required(node, in, 1).scalar_type())};
}

OpFunction activation(OpKind op) {
  switch (op) {
    case OpKind::kGelu: return gelu;
    case OpKind::kSilu: return silu;
    case OpKind::kRelu: return relu;
    case OpKind::kCelu: return celu;
    case OpKind::kElu: return elu;
    case OpKind::kSelu: return selu;
    case OpKind::kHardSigmoid: return hard_sigmoid;
    case OpKind::kHardSwish: return hard_swish;
    case OpKind::kLeakyRelu: return leaky_relu;
    case OpKind::kThresholdedRelu: return thresholded_relu;
    case OpKind::kMish: return unary<at::mish>;
    case OpKind::kShrink: return shrink;
    case OpKind::kSigmoid: return unary<at::sigmoid>;
    case OpKind::kSoftplus: return softplus;
    case OpKind::kSoftsign: return softsign;
    case OpKind::kTanh: return unary<at::tanh>;
    default: return nullptr;
  }
}

}  // namespace

OpFunction elementwise_op(OpKind op) {
  switch (op) {
    case OpKind::kIdentity: return identity;
    case OpKind::kAbs: return unary<at::abs>;
    case OpKind::kAcos: return unary<at::acos>;
    case OpKind::kAcosh: return unary<at::acosh>;
    case OpKind::kAsin: return unary<at::asin>;
    case OpKind::kAsinh: return unary<at::asinh>;
    case OpKind::kAtan: return unary<at::atan>;
    case OpKind::kAtanh: return unary<at::atanh>;
    case OpKind::kCeil: return unary<at::ceil>;
    case OpKind::kCos: return unary<at::cos>;
    case OpKind::kCosh: return unary<at::cosh>;
    case OpKind::kErf: return unary<at::erf>;
    case OpKind::kExp: return unary<at::exp>;
    case OpKind::kFloor: return unary<at::floor>;
    case OpKind::kIsInf: return is_inf;
    case OpKind::kIsNaN: return unary<at::isnan>;
    case OpKind::kLog: return unary<at::log>;
    case OpKind::kNeg: return unary<at::neg>;
    case OpKind::kNot: return unary<at::logical_not>;
    case OpKind::kBitwiseNot: return unary<at::bitwise_not>;
    case OpKind::kReciprocal: return unary<at::reciprocal>;
    case OpKind::kRound: return round_half_even;
    case OpKind::kSign: return unary<at::sign>;
    case OpKind::kSin: return unary<at::sin>;
    case OpKind::kSinh: return unary<at::sinh>;
    case OpKind::kSqrt: return unary<at::sqrt>;
    case OpKind::kTan: return unary<at::tan>;
    case OpKind::kClip: return clip;
    case OpKind::kCast: return cast;
    case OpKind::kCastLike: return cast_like;
    default: return activation(op);
  }
}

}  // namespace repquant::ops
