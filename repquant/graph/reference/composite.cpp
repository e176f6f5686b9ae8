#include <algorithm>
#include <cmath>
#include <limits>

#include "repquant/graph/reference/kernels.h"

namespace repquant::reference {
namespace {

Outputs linear(Inputs inputs) {
  const Tensor &x = *inputs[0], *w = input(inputs, 1), *bias = input(inputs, 2);
  if (!w || w->rank() != 2 || x.rank() < 1 || x.shape().back() != w->shape()[1])
    return std::nullopt;
  const int64_t k = w->shape()[1], n = w->shape()[0];
  if (bias && bias->size() != n) return std::nullopt;
  const auto a = to_doubles(x), b = to_doubles(*w),
             c = bias ? to_doubles(*bias) : std::vector<double>(n, 0.0);
  if (!a || !b || !c || !is_float(x.dtype())) return std::nullopt;
  const int64_t rows = k == 0 ? 0 : x.size() / k;
  if (too_large(std::vector<int64_t>{rows, n})) return std::nullopt;
  std::vector<double> swapped(b->size());
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t p = 0; p < k; ++p) {
      swapped[static_cast<size_t>(p * n + j)] = (*b)[static_cast<size_t>(j * k + p)];
    }
  }
  std::vector<double> out(static_cast<size_t>(rows * n));
  for (int64_t r = 0; r < rows; ++r) std::copy(c->begin(), c->end(), out.begin() + r * n);
  multiply(a->data(), swapped.data(), out.data(), rows, k, n);
  Shape shape = x.shape();
  shape.back() = n;
  return one(from_doubles(x.dtype(), shape, out));
}

struct NormParameters {
  int64_t width;
  std::vector<double> x, gamma, beta;
};

std::optional<NormParameters> norm_parameters(const Node& node, Inputs inputs) {
  const Tensor& x = *inputs[0];
  const auto axis = normal_axis(node.attrs.integer("axis", -1), x.rank());
  const auto values = to_doubles(x);
  if (!axis || !values || !is_float(x.dtype())) return std::nullopt;
  NormParameters p{1, *values, {}, {}};
  for (size_t d = static_cast<size_t>(*axis); d < x.shape().size(); ++d) p.width *= x.shape()[d];
  const Shape inner(x.shape().begin() + *axis, x.shape().end());
  const auto affine = [&](size_t index, double missing) -> std::optional<std::vector<double>> {
    const Tensor* t = input(inputs, index);
    if (!t) return std::vector<double>(static_cast<size_t>(p.width), missing);
    const auto full = expand_to(*t, inner);
    return full ? to_doubles(*full) : std::nullopt;
  };
  const auto gamma = affine(1, 1.0), beta = affine(2, 0.0);
  if (!gamma || !beta) return std::nullopt;
  p.gamma = *gamma;
  p.beta = *beta;
  return p;
}

Outputs norm(const Node& node, Inputs inputs, bool centred) {
  auto p = norm_parameters(node, inputs);
  if (!p || p->width == 0) return std::nullopt;
  const double epsilon = node.attrs.real("epsilon", 1e-5F);
  const auto width = static_cast<size_t>(p->width);
  for (size_t at = 0; at < p->x.size(); at += width) {
    double mean = 0, square = 0;
    for (size_t i = 0; centred && i < width; ++i) mean += p->x[at + i];
    mean /= static_cast<double>(width);
    for (size_t i = 0; i < width; ++i) square += (p->x[at + i] - mean) * (p->x[at + i] - mean);
    const double inverse = 1.0 / std::sqrt(square / static_cast<double>(width) + epsilon);
    for (size_t i = 0; i < width; ++i) {
      p->x[at + i] = (p->x[at + i] - mean) * inverse * p->gamma[i] + p->beta[i];
    }
  }
  return one(from_doubles(inputs[0]->dtype(), inputs[0]->shape(), p->x));
}

struct HeadSizes {
  int64_t lead, heads, kv_heads, t, s, d, dv;
};

std::optional<HeadSizes> head_sizes(const Node& node, const Tensor& q, const Tensor& k,
                                    const Tensor& v) {
  const int64_t heads = node.attrs.integer("heads", 1), kv = node.attrs.integer("kv_heads", heads);
  if (q.rank() < 2 || k.rank() != q.rank() || v.rank() != q.rank()) return std::nullopt;
  if (heads < 1 || kv < 1 || heads % kv != 0) return std::nullopt;
  HeadSizes s{1, heads, kv, 0, 0, 0, 0};
  const size_t rank = q.shape().size();
  for (size_t i = 0; i + 2 < rank; ++i) {
    if (q.shape()[i] != k.shape()[i] || q.shape()[i] != v.shape()[i]) return std::nullopt;
    s.lead *= q.shape()[i];
  }
  s.t = q.shape()[rank - 2];
  s.s = k.shape()[rank - 2];
  s.d = q.shape().back() / heads;
  s.dv = v.shape().back() / kv;
  if (q.shape().back() != s.d * heads || k.shape().back() != s.d * kv ||
      v.shape().back() != s.dv * kv || v.shape()[rank - 2] != s.s) {
    return std::nullopt;
  }
  return s;
}

// One head of one leading position: probabilities in `p` [t, s], then out[t, ..] += p v.
struct HeadInputs {
  const double *q, *k, *v, *bias;   // bias may be null
  int64_t q_row, k_row, v_row;
};

// x / max(l2(x), epsilon) over the last axis; 0 where both are 0.
Outputs lp_norm(const Node& node, Inputs inputs) {
  const Tensor& x = *inputs[0];
  const auto axis = normal_axis(node.attrs.integer("axis", -1), x.rank());
  auto values = to_doubles(x);
  if (!axis || *axis + 1 != x.rank() || node.attrs.integer("p", 2) != 2 || !values ||
      !is_float(x.dtype())) {
    return std::nullopt;
  }
  const double epsilon = node.attrs.real("epsilon", 0);
  const auto width = static_cast<size_t>(x.shape().back());
  for (size_t at = 0; at < values->size(); at += width) {
    double square = 0;
    for (size_t i = 0; i < width; ++i) square += (*values)[at + i] * (*values)[at + i];
    const double size = std::max(std::sqrt(square), epsilon);
    for (size_t i = 0; i < width && size > 0; ++i) (*values)[at + i] /= size;
  }
  return one(from_doubles(x.dtype(), x.shape(), *values));
}

void attend(const HeadSizes& s, const HeadInputs& in, double scale, bool causal,
            std::vector<double>& p, double* out) {
  for (int64_t i = 0; i < s.t; ++i) {
    for (int64_t j = 0; j < s.s; ++j) {
      double sum = 0;
      for (int64_t c = 0; c < s.d; ++c) sum += in.q[i * in.q_row + c] * in.k[j * in.k_row + c];
      sum *= scale;
      if (in.bias) sum += in.bias[i * s.s + j];
      if (causal && j > i) sum = -std::numeric_limits<double>::infinity();
      p[static_cast<size_t>(i * s.s + j)] = sum;
    }
  }
  softmax_rows(p, s.s);
  for (int64_t i = 0; i < s.t; ++i) {
    double* row = out + i * s.heads * s.dv;
    for (int64_t c = 0; c < s.dv; ++c) row[c] = 0;
    for (int64_t j = 0; j < s.s; ++j) {
      const double weight = p[static_cast<size_t>(i * s.s + j)];
      for (int64_t c = 0; c < s.dv; ++c) row[c] += weight * in.v[j * in.v_row + c];
    }
  }
}

Outputs attention(const Node& node, Inputs inputs) {
  if (!input(inputs, 1) || !input(inputs, 2)) return std::nullopt;
  const Tensor &q = *inputs[0], &k = *inputs[1], &v = *inputs[2];
  const auto sizes = head_sizes(node, q, k, v);
  const auto x = to_doubles(q), y = to_doubles(k), z = to_doubles(v);
  if (!sizes || !x || !y || !z || !is_float(q.dtype())) return std::nullopt;
  const HeadSizes& s = *sizes;
  if (too_large(std::vector<int64_t>{s.lead, s.heads, s.t, s.s})) return std::nullopt;
  std::vector<double> bias;
  if (const Tensor* b = input(inputs, 3)) {
    Shape full(q.shape().begin(), q.shape().end() - 2);
    full.insert(full.end(), {s.heads, s.t, s.s});
    const auto expanded = expand_to(*b, full);
    if (!expanded || !is_float(b->dtype())) return std::nullopt;
    bias = *to_doubles(*expanded);
  }
  const double scale =
      node.attrs.real("scale", static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.d))));
  const bool causal = node.attrs.integer("causal", 0) != 0;
  const std::vector<float> factors = node.attrs.reals("head_scale");
  if (!factors.empty() && static_cast<int64_t>(factors.size()) != s.heads) return std::nullopt;
  std::vector<double> out(static_cast<size_t>(s.lead * s.t * s.heads * s.dv));
  std::vector<double> p(static_cast<size_t>(s.t * s.s));
  for (int64_t b = 0; b < s.lead; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t g = h / (s.heads / s.kv_heads), kv = s.kv_heads;
      const HeadInputs in{x->data() + b * s.t * s.heads * s.d + h * s.d,
                          y->data() + b * s.s * kv * s.d + g * s.d,
                          z->data() + b * s.s * kv * s.dv + g * s.dv,
                          bias.empty() ? nullptr : bias.data() + (b * s.heads + h) * s.t * s.s,
                          s.heads * s.d,
                          kv * s.d,
                          kv * s.dv};
      const double own = factors.empty() ? 1.0 : static_cast<double>(factors[static_cast<size_t>(h)]);
      attend(s, in, scale * own, causal, p, out.data() + b * s.t * s.heads * s.dv + h * s.dv);
    }
  }
  Shape shape = q.shape();
  shape.back() = s.heads * s.dv;
  return one(from_doubles(q.dtype(), shape, out));
}

}   // namespace

Outputs composite(const Node& node, Inputs inputs) {
  if (inputs.empty() || !inputs[0]) return std::nullopt;
  switch (node.op) {
    case OpKind::kLinear: return linear(inputs);
    case OpKind::kLayerNorm: return norm(node, inputs, true);
    case OpKind::kRmsNorm: return norm(node, inputs, false);
    case OpKind::kLpNorm: return lp_norm(node, inputs);
    case OpKind::kMultiHeadAttention: return attention(node, inputs);
    default: return std::nullopt;
  }
}

}   // namespace repquant::reference
