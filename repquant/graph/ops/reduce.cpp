#include <algorithm>

#include "repquant/graph/ops/shape_functions.h"

namespace repquant::shapes {
namespace {

// The number of elements, as exporters compute it: ReduceProd of a Shape.
void reduce_integers(InferContext& c, bool keep) {
  const IntTensor* values = c.integers(0);
  if (!values || c.node().op != OpKind::kReduceProd) return;
  Dim total = known_dim(1);
  for (const Element& e : values->elements) total = multiply(total, dim_of(e));
  if (!is_unknown(total)) c.set_integers(0, {!keep, {element_of(total)}});
}

}  // namespace

void reduce(InferContext& c) {
  const auto* data = c.shape(0);
  if (!data) return;
  const bool keep = c.node().attrs.integer("keepdims", 1) != 0;
  std::vector<bool> reduced(data->size(), false);
  const bool absent = !c.has(1);
  const auto axes = absent ? std::nullopt : c.numbers(1);
  if (!absent && !axes) {
    if (keep) c.set_shape(0, SymbolicShape(data->size()));
    return;
  }
  if (absent || axes->empty()) {
    if (c.node().attrs.integer("noop_with_empty_axes", 0) != 0) return c.set_shape(0, *data);
    reduced.assign(data->size(), true);
  } else {
    for (const int64_t a : *axes) reduced[static_cast<size_t>(c.axis(a, data->size()))] = true;
  }
  SymbolicShape out;
  for (size_t i = 0; i < data->size(); ++i) {
    if (!reduced[i]) out.push_back((*data)[i]);
    else if (keep) out.push_back(known_dim(1));
  }
  if (data->size() == 1 && reduced[0]) reduce_integers(c, keep);
  c.set_shape(0, std::move(out));
}

void arg_reduce(InferContext& c) {
  c.set_dtype(0, DType::kI64);
  const auto* data = c.shape(0);
  if (!data) return;
  SymbolicShape out = *data;
  const auto axis = c.axis(c.node().attrs.integer("axis", 0), data->size());
  if (c.node().attrs.integer("keepdims", 1) != 0) out[static_cast<size_t>(axis)] = known_dim(1);
  else out.erase(out.begin() + axis);
  c.set_shape(0, std::move(out));
}

}  // namespace repquant::shapes
