// Reductions over axes, given as input 1 or as attribute.
#include <algorithm>
#include <numeric>

#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

using Reduction = at::Tensor (*)(const at::Tensor& x, at::IntArrayRef axes, bool keep);

at::Tensor sum(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  return at::sum(x, axes, keep, x.scalar_type());
}

at::Tensor mean(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  if (at::isFloatingType(x.scalar_type())) return at::mean(x, axes, keep);
  return at::mean(x.to(at::kDouble), axes, keep).to(x.scalar_type());
}

at::Tensor maximum(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  return at::amax(x, axes, keep);
}
at::Tensor minimum(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  return at::amin(x, axes, keep);
}

at::Tensor product(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  std::vector<int64_t> order(axes.begin(), axes.end());
  std::ranges::sort(order, std::greater<>());
  at::Tensor result = x;
  for (const int64_t axis : order) result = at::prod(result, axis, keep, x.scalar_type());
  return result;
}

at::Tensor l1(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  return sum(at::abs(x), axes, keep);
}

at::Tensor l2(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  return at::sqrt(sum(at::square(x), axes, keep)).to(x.scalar_type());
}

at::Tensor sum_square(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  return sum(at::square(x), axes, keep);
}

at::Tensor log_sum(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  return at::log(sum(x, axes, keep)).to(x.scalar_type());
}

at::Tensor log_sum_exp(const at::Tensor& x, at::IntArrayRef axes, bool keep) {
  return at::logsumexp(x, axes, keep).to(x.scalar_type());
}

template <Reduction F>
Tensors reduce(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  auto axes = normal_axes(node, ints_of(node, in, 1, "axes"), x.dim());
  if (axes.empty()) {
    if (node.attrs.integer("noop_with_empty_axes", 0) != 0) return {x};
    axes.resize(static_cast<size_t>(x.dim()));
    std::iota(axes.begin(), axes.end(), 0);
  }
  return {F(x, axes, node.attrs.integer("keepdims", 1) != 0)};
}

}  // namespace

OpFunction reduce_op(OpKind op) {
  switch (op) {
    case OpKind::kReduceL1: return reduce<l1>;
    case OpKind::kReduceL2: return reduce<l2>;
    case OpKind::kReduceLogSum: return reduce<log_sum>;
    case OpKind::kReduceLogSumExp: return reduce<log_sum_exp>;
    case OpKind::kReduceMax: return reduce<maximum>;
    case OpKind::kReduceMean: return reduce<mean>;
    case OpKind::kReduceMin: return reduce<minimum>;
    case OpKind::kReduceProd: return reduce<product>;
    case OpKind::kReduceSum: return reduce<sum>;
    case OpKind::kReduceSumSquare: return reduce<sum_square>;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
