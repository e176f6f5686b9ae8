#include <cmath>

#include "repquant/graph/reference/kernels.h"

namespace repquant::reference {
namespace {

Outputs matmul(const Tensor& a, const Tensor& b) {
  if (a.rank() == 0 || b.rank() == 0 || a.dtype() != b.dtype() || !is_float(a.dtype()))
    return std::nullopt;
  Shape sa = a.shape(), sb = b.shape();
  if (a.rank() == 1) sa.insert(sa.begin(), 1);
  if (b.rank() == 1) sb.push_back(1);
  const int64_t m = sa[sa.size() - 2], k = sa.back(), n = sb.back();
  if (sb[sb.size() - 2] != k) return std::nullopt;
  const Shape la(sa.begin(), sa.end() - 2), lb(sb.begin(), sb.end() - 2);
  const auto lead = broadcast(la, lb);
  const auto x = to_doubles(a), y = to_doubles(b);
  if (!lead || !x || !y) return std::nullopt;
  const int64_t count = element_count(*lead);
  // which matrix of each operand belongs to a position of the broadcast leading dimensions
  const auto positions = [&](const Shape& own) {
    std::vector<int64_t> numbers(static_cast<size_t>(element_count(own)));
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int64_t>(i);
    return *to_integers(*expand_to(Tensor::of<int64_t>(own, numbers), *lead));
  };
  const auto pa = positions(la), pb = positions(lb);
  if (too_large(std::vector<int64_t>{count, m, n})) return std::nullopt;
  std::vector<double> out(static_cast<size_t>(count * m * n), 0.0);
  for (int64_t i = 0; i < count; ++i) {
    const auto p = static_cast<size_t>(i);
    multiply(x->data() + pa[p] * m * k, y->data() + pb[p] * k * n, out.data() + i * m * n, m, k, n);
  }
  Shape shape = *lead;
  if (a.rank() > 1) shape.push_back(m);
  if (b.rank() > 1) shape.push_back(n);
  return one(from_doubles(a.dtype(), shape, out));
}

std::optional<Tensor> transposed(const Tensor& t, bool swap) {
  if (t.rank() != 2) return std::nullopt;
  if (!swap) return t;
  const std::vector<int64_t> strides{1, t.shape()[1]};
  return strided_copy(t, {t.shape()[1], t.shape()[0]}, strides, 0);
}

Outputs gemm(const Node& node, Inputs inputs) {
  const Tensor* b = input(inputs, 1);
  if (!b) return std::nullopt;
  const auto a = transposed(*inputs[0], node.attrs.integer("transA", 0) != 0);
  const auto w = transposed(*b, node.attrs.integer("transB", 0) != 0);
  if (!a || !w) return std::nullopt;
  auto out = matmul(*a, *w);
  if (!out) return std::nullopt;
  Tensor& y = out->front();
  auto values = *to_doubles(y);
  std::vector<double> bias(values.size(), 0.0);
  if (const Tensor* c = input(inputs, 2)) {
    const auto full = expand_to(*c, y.shape());
    if (!full || c->dtype() != y.dtype()) return std::nullopt;
    bias = *to_doubles(*full);
  }
  const double alpha = node.attrs.real("alpha", 1.0F), beta = node.attrs.real("beta", 1.0F);
  for (size_t i = 0; i < values.size(); ++i) values[i] = alpha * values[i] + beta * bias[i];
  return one(from_doubles(y.dtype(), y.shape(), values));
}

Outputs softmax(const Node& node, const Tensor& x) {
  const auto axis = normal_axis(node.attrs.integer("axis", -1), x.rank());
  auto values = to_doubles(x);
  if (!axis || !values || !is_float(x.dtype())) return std::nullopt;
  const auto a = static_cast<size_t>(*axis);
  const int64_t n = x.shape()[a], inner = row_major_strides(x.shape())[a];
  if (inner == 1) {
    softmax_rows(*values, n);
    return one(from_doubles(x.dtype(), x.shape(), *values));
  }
  std::vector<double> row(static_cast<size_t>(n));
  for (int64_t start = 0; start < x.size(); ++start) {
    if (start / inner % n != 0) continue;
    for (int64_t i = 0; i < n; ++i)
      row[static_cast<size_t>(i)] = (*values)[static_cast<size_t>(start + i * inner)];
    softmax_rows(row, n);
    for (int64_t i = 0; i < n; ++i)
      (*values)[static_cast<size_t>(start + i * inner)] = row[static_cast<size_t>(i)];
  }
  return one(from_doubles(x.dtype(), x.shape(), *values));
}

}   // namespace

void multiply(const double* a, const double* b, double* c, int64_t m, int64_t k, int64_t n) {
  for (int64_t i = 0; i < m; ++i) {
    double* row = c + i * n;
    for (int64_t p = 0; p < k; ++p) {
      const double v = a[i * k + p];
      const double* line = b + p * n;
      for (int64_t j = 0; j < n; ++j) row[j] += v * line[j];
    }
  }
}

void softmax_rows(std::span<double> values, int64_t n) {
  if (n <= 0) return;
  const auto width = static_cast<size_t>(n);
  for (size_t at = 0; at + width <= values.size(); at += width) {
    double peak = values[at], sum = 0;
    for (size_t i = 1; i < width; ++i) peak = std::fmax(peak, values[at + i]);
    for (size_t i = 0; i < width; ++i) sum += values[at + i] = std::exp(values[at + i] - peak);
    for (size_t i = 0; i < width; ++i) values[at + i] /= sum;
  }
}

Outputs product(const Node& node, Inputs inputs) {
  if (inputs.empty() || !inputs[0]) return std::nullopt;
  switch (node.op) {
    case OpKind::kMatMul: return input(inputs, 1) ? matmul(*inputs[0], *inputs[1]) : std::nullopt;
    case OpKind::kGemm: return gemm(node, inputs);
    case OpKind::kSoftmax: return softmax(node, *inputs[0]);
    default: return std::nullopt;
  }
}

}   // namespace repquant::reference
