#include <algorithm>
#include <cmath>

#include "repquant/graph/ops/shape_functions.h"

namespace repquant::shapes {
namespace {

std::optional<double> number_in(const Tensor* tensor) {
  if (!tensor || tensor->size() != 1) return std::nullopt;
  switch (tensor->dtype()) {
    case DType::kF32: return tensor->as<float>()[0];
    case DType::kF64: return tensor->as<double>()[0];
    default: return std::nullopt;
  }
}

constexpr int64_t kMaxFollowed = 128;

// How many of a, a + step, ... lie before b; in unsigned arithmetic, where differences cannot
// overflow.
int64_t steps_between(int64_t a, int64_t b, int64_t step) {
  if (step > 0 ? a >= b : a <= b) return 0;
  const uint64_t span = step > 0 ? static_cast<uint64_t>(b) - static_cast<uint64_t>(a)
                                 : static_cast<uint64_t>(a) - static_cast<uint64_t>(b);
  const uint64_t stride =
      step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  return static_cast<int64_t>(std::min<uint64_t>((span - 1) / stride + 1, INT64_MAX));
}

}  // namespace

void shape(InferContext& c) {
  c.set_dtype(0, DType::kI64);
  const auto* data = c.shape(0);
  if (!data) return c.set_shape(0, SymbolicShape(1));
  const auto rank = static_cast<int64_t>(data->size());
  const auto bound = [&](int64_t v) {
    return std::clamp<int64_t>(v < 0 ? (v < -rank ? 0 : v + rank) : v, 0, rank);
  };
  const int64_t start = bound(c.node().attrs.integer("start", 0));
  const int64_t end = std::max(start, bound(c.node().attrs.integer("end", rank)));
  IntTensor out;
  for (int64_t i = start; i < end; ++i)
    out.elements.push_back(element_of((*data)[static_cast<size_t>(i)]));
  c.set_shape(0, {known_dim(end - start)});
  c.set_integers(0, std::move(out));
}

void size(InferContext& c) {
  c.set_dtype(0, DType::kI64);
  c.set_shape(0, {});
  if (const auto* data = c.shape(0)) c.set_integers(0, {true, {element_of(product(*data))}});
}

void range(InferContext& c) {
  const auto start = number_in(c.constant(0)), limit = number_in(c.constant(1)),
             delta = number_in(c.constant(2));
  if (start && limit && delta) {
    const double count = *delta == 0 ? -1 : std::max(0.0, std::ceil((*limit - *start) / *delta));
    if (!(count >= 0 && count < 1e15)) c.fail("a range with a step towards its limit");
    return c.set_shape(0, {known_dim(static_cast<int64_t>(count))});
  }
  const auto *from = c.integers(0), *to = c.integers(1), *step = c.integers(2);
  SymbolicShape out(1);
  if (from && to && step && from->elements.size() == 1 && to->elements.size() == 1 &&
      step->elements.size() == 1) {
    const Element a = from->elements[0], b = to->elements[0], d = step->elements[0];
    if (a.known && b.known && d.known) {
      if (d.value == 0) c.fail("a step other than 0");
      const int64_t count = steps_between(a.value, b.value, d.value);
      out[0] = known_dim(count);
      if (count <= kMaxFollowed) {
        IntTensor values;
        for (int64_t i = 0; i < count; ++i)
          values.elements.push_back({true, checked_add(a.value, checked_mul(i, d.value)), {}});
        c.set_integers(0, std::move(values));
      }
    } else if (a.known && a.value == 0 && d.known && d.value == 1) {
      out[0] = dim_of(b);
    }
  }
  c.set_shape(0, std::move(out));
}

void constant_of_shape(InferContext& c) {
  const Tensor* value = c.node().attrs.tensor("value");
  c.set_dtype(0, value ? value->dtype() : DType::kF32);
  const IntTensor* sizes = c.integers(0);
  if (!sizes) {
    const auto* rank = c.shape(0);
    if (rank && rank->size() == 1 && (*rank)[0].known() && (*rank)[0].size <= 64) {
      c.set_shape(0, SymbolicShape(static_cast<size_t>((*rank)[0].size)));
    }
    return;
  }
  SymbolicShape out;
  for (const Element& e : sizes->elements) out.push_back(dim_of(e));
  const bool small =
      out.empty() || (out.size() == 1 && out[0].known() && out[0].size <= kMaxFollowed);
  if (small && value && value->dtype() == DType::kI64 && value->size() == 1) {
    const auto count = static_cast<size_t>(out.empty() ? 1 : out[0].size);
    c.set_integers(
        0, {out.empty(), std::vector<Element>(count, Element{true, value->as<int64_t>()[0], {}})});
  }
  c.set_shape(0, std::move(out));
}

void eye_like(InferContext& c) {
  if (const auto* data = c.shape(0)) c.set_shape(0, *data);
  if (!c.node().attrs.has("dtype")) return;
  if (const auto type = dtype_of_onnx(c.node().attrs.integer("dtype", 1))) c.set_dtype(0, *type);
}

void one_hot(InferContext& c) {
  c.set_dtype(0, c.dtype(2));
  const auto* indices = c.shape(0);
  if (!indices) return;
  SymbolicShape out = *indices;
  const auto axis = c.axis(c.node().attrs.integer("axis", -1), indices->size() + 1);
  const IntTensor* depth = c.integers(1);
  out.insert(out.begin() + axis,
             depth && depth->elements.size() == 1 ? dim_of(depth->elements[0]) : Dim{});
  c.set_shape(0, std::move(out));
}

void non_zero(InferContext& c) {
  c.set_dtype(0, DType::kI64);
  const auto* data = c.shape(0);
  c.set_shape(0, {data ? known_dim(static_cast<int64_t>(data->size())) : Dim{}, Dim{}});
}

}  // namespace repquant::shapes
