#include <cmath>
#include <limits>

#include "repquant/graph/reference/kernels.h"

namespace repquant::reference {
namespace {

struct Rule {
  double start;
  double (*step)(double, double);
  double (*finish)(double, double count);
};

double keep(double v, double) { return v; }
double add(double a, double v) { return a + v; }
double add_square(double a, double v) { return a + v * v; }

std::optional<Rule> rule_of(OpKind op) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  switch (op) {
    case OpKind::kReduceSum: return Rule{0, add, keep};
    case OpKind::kReduceMean: return Rule{0, add, [](double v, double n) { return v / n; }};
    case OpKind::kReduceSumSquare: return Rule{0, add_square, keep};
    case OpKind::kReduceL2:
      return Rule{0, add_square, [](double v, double) { return std::sqrt(v); }};
    case OpKind::kReduceL1:
      return Rule{0, [](double a, double v) { return a + std::fabs(v); }, keep};
    case OpKind::kReduceProd: return Rule{1, [](double a, double v) { return a * v; }, keep};
    case OpKind::kReduceMax:
      return Rule{-infinity, [](double a, double v) { return std::fmax(a, v); }, keep};
    case OpKind::kReduceMin:
      return Rule{infinity, [](double a, double v) { return std::fmin(a, v); }, keep};
    default: return std::nullopt;
  }
}

}   // namespace

Outputs reduction(const Node& node, Inputs inputs) {
  const auto rule = rule_of(node.op);
  if (!rule || inputs.empty() || !inputs[0]) return std::nullopt;
  const Tensor& x = *inputs[0];
  const auto axes = integers_of(node, inputs, 1, "axes");
  const bool none = !axes || axes->empty();
  if (none && node.attrs.integer("noop_with_empty_axes", 0) != 0) return one(x);
  std::vector<bool> reduced(x.shape().size(), none);
  for (size_t i = 0; !none && i < axes->size(); ++i) {
    const auto axis = normal_axis((*axes)[i], x.rank());
    if (!axis) return std::nullopt;
    reduced[static_cast<size_t>(*axis)] = true;
  }
  Shape kept, dropped;
  std::vector<int64_t> strides(reduced.size(), 0);
  int64_t count = 1;
  for (size_t d = 0; d < reduced.size(); ++d) {
    kept.push_back(reduced[d] ? 1 : x.shape()[d]);
    if (!reduced[d]) dropped.push_back(x.shape()[d]);
    else count *= x.shape()[d];
  }
  const auto own = row_major_strides(kept);
  for (size_t d = 0; d < reduced.size(); ++d) strides[d] = reduced[d] ? 0 : own[d];
  const auto values = to_doubles(x);
  if (!values) return std::nullopt;
  std::vector<double> out(static_cast<size_t>(element_count(kept)), rule->start);
  Shape index(reduced.size(), 0);
  for (size_t i = 0, at = 0; i < values->size(); ++i) {
    out[at] = rule->step(out[at], (*values)[i]);
    for (size_t d = index.size(); d-- > 0;) {
      at += static_cast<size_t>(strides[d]);
      if (++index[d] < x.shape()[d]) break;
      at -= static_cast<size_t>(strides[d] * x.shape()[d]);
      index[d] = 0;
    }
  }
  for (double& v : out) v = rule->finish(v, static_cast<double>(count));
  const bool keepdims = node.attrs.integer("keepdims", 1) != 0;
  return one(from_doubles(x.dtype(), keepdims ? kept : dropped, out));
}

}   // namespace repquant::reference
