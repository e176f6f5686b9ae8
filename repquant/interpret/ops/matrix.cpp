// Matrix products.
#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

Tensors linear(const Node& node, Inputs in) {
  return {at::linear(required(node, in, 0), required(node, in, 1), optional(in, 2))};
}

Tensors matmul(const Node& node, Inputs in) {
  return {at::matmul(required(node, in, 0), required(node, in, 1))};
}

Tensors gemm(const Node& node, Inputs in) {
  const at::Tensor& first = required(node, in, 0);
  const at::Tensor& second = required(node, in, 1);
  const at::Tensor a = node.attrs.integer("transA", 0) != 0 ? first.t() : first;
  const at::Tensor b = node.attrs.integer("transB", 0) != 0 ? second.t() : second;
  const float alpha = node.attrs.real("alpha", 1.0F), beta = node.attrs.real("beta", 1.0F);
  if (!present(in, 2)) {
    const at::Tensor product = at::mm(a, b);
    return {alpha == 1.0F ? product : product * alpha};
  }
  return {at::addmm(in[2], a, b, beta, alpha)};
}

Tensors einsum(const Node& node, Inputs in) {
  std::vector<at::Tensor> operands(in.begin(), in.end());
  return {at::einsum(node.attrs.text("equation", ""), operands)};
}

// Integers of 8 bits: products below 2^16 and up to 2^37 terms are exact in double.
Tensors matmul_integer(const Node& node, Inputs in) {
  const auto shifted = [&](size_t index, bool rows) {
    const at::Tensor x = required(node, in, index).to(at::kDouble);
    if (!present(in, index + 2)) return x;
    at::Tensor zero = in[index + 2].to(at::kDouble);
    if (rows && zero.dim() == 1 && zero.numel() > 1) zero = zero.unsqueeze(-1);
    return x - zero;
  };
  return {at::matmul(shifted(0, true), shifted(1, false)).to(at::kInt)};
}

}  // namespace

OpFunction matrix_op(OpKind op) {
  switch (op) {
    case OpKind::kLinear: return linear;
    case OpKind::kMatMul: return matmul;
    case OpKind::kGemm: return gemm;
    case OpKind::kEinsum: return einsum;
    case OpKind::kMatMulInteger: return matmul_integer;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
