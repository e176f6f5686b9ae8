#include <algorithm>

#include "repquant/graph/ops/shape_functions.h"

namespace repquant::shapes {
namespace {

// One axis of a Slice with everything known, as ONNX clamps it.
int64_t slice_length(int64_t size, int64_t start, int64_t end, int64_t step) {
  const auto clamp = [&](int64_t v, int64_t low, int64_t high) {
    const int64_t wrapped = v < 0 ? (v < -size ? low : v + size) : v;
    return std::clamp(wrapped, low, high);
  };
  if (step > 0) {
    const int64_t from = clamp(start, 0, size), to = clamp(end, 0, size);
    return to > from ? (to - from - 1) / step + 1 : 0;
  }
  const int64_t from = clamp(start, -1, size - 1), to = end < -size ? -1 : clamp(end, -1, size - 1);
  const int64_t back = step == INT64_MIN ? INT64_MAX : -step;
  return from > to ? (from - to - 1) / back + 1 : 0;
}

struct Cut {
  Element start, end;
  int64_t step = 1;
};

constexpr int64_t kFar = INT32_MAX;   // ends at or beyond this mean "to the end"

// A size that is not known, or a bound that is a symbol.
Dim symbolic_length(const Dim& dim, const Cut& cut) {
  const bool from_start = cut.start.known && cut.start.value == 0;
  const bool to_end = cut.end.known && cut.end.value >= kFar;
  if (cut.step != 1) return from_start && to_end && cut.step == -1 ? dim : Dim{};
  if (from_start && to_end) return dim;
  if (!cut.end.known && dim_of(cut.end) == dim && !is_unknown(dim) && from_start) return dim;
  // A prefix as long as another dimension: a shorter input would fail where the two meet.
  if (from_start && !cut.end.known) return dim_of(cut.end);
  if (is_unknown(dim) || dim.known() || !cut.start.known || cut.start.value <= -kFar) return {};
  if (to_end)
    return cut.start.value >= 0 ? add(dim, -cut.start.value) : known_dim(-cut.start.value);
  if (!cut.end.known || cut.end.value <= -kFar) return {};
  if (cut.end.value < 0 && cut.start.value >= 0)
    return add(dim, checked_add(cut.end.value, -cut.start.value));
  const bool same_side = (cut.start.value >= 0) == (cut.end.value >= 0);
  if (same_side && cut.end.value - cut.start.value == 1) return known_dim(1);   // one row is picked
  return {};
}

Dim cut_length(const Dim& dim, const Cut& cut) {
  if (dim.known() && cut.start.known && cut.end.known) {
    return known_dim(slice_length(dim.size, cut.start.value, cut.end.value, cut.step));
  }
  return symbolic_length(dim, cut);
}

void cut_integers(InferContext& c, const Cut& cut) {
  const IntTensor* data = c.integers(0);
  if (!data || data->scalar || !cut.start.known || !cut.end.known) return;
  const auto size = static_cast<int64_t>(data->elements.size());
  const int64_t length = slice_length(size, cut.start.value, cut.end.value, cut.step);
  int64_t at = cut.start.value < 0 ? cut.start.value + size : cut.start.value;
  at = std::clamp<int64_t>(at, 0, cut.step > 0 ? size : size - 1);
  IntTensor out;
  for (int64_t i = 0; i < length; ++i, at += cut.step)
    out.elements.push_back(data->elements[static_cast<size_t>(at)]);
  c.set_integers(0, std::move(out));
}

}  // namespace

void gather(InferContext& c) {
  const auto *data = c.shape(0), *indices = c.shape(1);
  if (!data || !indices) return;
  if (data->empty()) c.fail("data with dimensions, got a scalar");
  const auto axis = c.axis(c.node().attrs.integer("axis", 0), data->size());
  SymbolicShape out(data->begin(), data->begin() + axis);
  out.insert(out.end(), indices->begin(), indices->end());
  out.insert(out.end(), data->begin() + axis + 1, data->end());
  c.set_shape(0, std::move(out));
  const IntTensor* values = c.integers(0);
  const auto picks = c.numbers(1);
  if (!values || !picks || values->scalar) return;
  IntTensor picked{indices->empty(), {}};
  const auto size = static_cast<int64_t>(values->elements.size());
  for (const int64_t p : *picks) {
    if (p < -size || p >= size)
      c.fail("indices below " + std::to_string(size) + ", got " + std::to_string(p));
    picked.elements.push_back(values->elements[static_cast<size_t>(p < 0 ? p + size : p)]);
  }
  c.set_integers(0, std::move(picked));
}

void gather_elements(InferContext& c) {
  if (const auto* indices = c.shape(1)) c.set_shape(0, *indices);
}

void gather_nd(InferContext& c) {
  const auto *data = c.shape(0), *indices = c.shape(1);
  if (!data || !indices || indices->empty() || !indices->back().known()) return;
  const int64_t batch = c.node().attrs.integer("batch_dims", 0);
  const int64_t skipped = checked_add(batch, indices->back().size);
  if (batch < 0 || skipped > static_cast<int64_t>(data->size()))
    c.fail("indices into " + to_string(*data));
  SymbolicShape out(indices->begin(), indices->end() - 1);
  out.insert(out.end(), data->begin() + skipped, data->end());
  c.set_shape(0, std::move(out));
}

void slice(InferContext& c) {
  const auto* data = c.shape(0);
  if (!data) return;
  SymbolicShape out = *data;
  const IntTensor *starts = c.integers(1), *ends = c.integers(2);
  const auto axes = c.has(3) ? c.numbers(3) : std::nullopt,
             steps = c.has(4) ? c.numbers(4) : std::nullopt;
  if ((c.has(3) && !axes) || (c.has(4) && !steps) || (!starts && !ends && !c.has(3))) {
    return c.set_shape(0, SymbolicShape(data->size()));
  }
  const size_t count = axes     ? axes->size()
                       : starts ? starts->elements.size()
                                : ends->elements.size();
  if ((starts && starts->elements.size() != count) || (ends && ends->elements.size() != count) ||
      (steps && steps->size() != count)) {
    c.fail("as many starts, ends, axes and steps");
  }
  for (size_t i = 0; i < count; ++i) {
    const auto axis =
        static_cast<size_t>(c.axis(axes ? (*axes)[i] : static_cast<int64_t>(i), data->size()));
    const Cut cut{starts ? starts->elements[i] : Element{}, ends ? ends->elements[i] : Element{},
                  steps ? (*steps)[i] : 1};
    if (cut.step == 0) c.fail("steps other than 0");
    out[axis] = cut_length(out[axis], cut);
    if (data->size() == 1 && count == 1) cut_integers(c, cut);
  }
  c.set_shape(0, std::move(out));
}

void split(InferContext& c) {
  const auto* data = c.shape(0);
  if (!data) return;
  if (data->empty()) c.fail("an input with dimensions, got a scalar");
  const auto axis = static_cast<size_t>(c.axis(c.node().attrs.integer("axis", 0), data->size()));
  const auto sizes = c.has(1) ? c.numbers(1) : std::nullopt;
  const auto count = static_cast<int64_t>(c.output_count());
  if (sizes && static_cast<int64_t>(sizes->size()) != count) c.fail("as many sizes as outputs");
  const Dim whole = (*data)[axis];
  if (sizes && whole.known()) {
    int64_t sum = 0;
    for (const int64_t s : *sizes) sum = s < 0 ? INT64_MAX : checked_add(sum, s);
    if (sum != whole.size)
      c.fail("sizes that sum to " + std::to_string(whole.size) + ", got " + std::to_string(sum));
  }
  // Equal parts, the last one smaller.
  const int64_t each = whole.known() ? (whole.size + count - 1) / count : 0;
  const auto part = [&](int64_t i) -> Dim {
    if (sizes) return known_dim(std::max<int64_t>(0, (*sizes)[static_cast<size_t>(i)]));
    if (c.has(1)) return {};
    if (whole.known())
      return known_dim(std::max<int64_t>(0, std::min(each, whole.size - i * each)));
    return divide(whole, known_dim(count)).value_or(Dim{});
  };
  size_t begin = 0;
  const IntTensor* values = data->size() == 1 ? c.integers(0) : nullptr;
  for (int64_t i = 0; i < count; ++i) {
    SymbolicShape out = *data;
    out[axis] = part(i);
    if (values && out[axis].known()) {
      const size_t end =
          std::min(values->elements.size(), begin + static_cast<size_t>(out[axis].size));
      const auto at = values->elements.begin();
      c.set_integers(static_cast<size_t>(i),
                     {false, {at + static_cast<int64_t>(begin), at + static_cast<int64_t>(end)}});
      begin = end;
    } else {
      values = nullptr;
    }
    c.set_shape(static_cast<size_t>(i), std::move(out));
    c.set_dtype(static_cast<size_t>(i), c.dtype(0));
  }
}

void top_k(InferContext& c) {
  c.set_dtype(1, DType::kI64);
  const auto* data = c.shape(0);
  if (!data) return;
  if (data->empty()) c.fail("an input with dimensions, got a scalar");
  SymbolicShape out = *data;
  const auto axis = static_cast<size_t>(c.axis(c.node().attrs.integer("axis", -1), data->size()));
  const IntTensor* k = c.integers(1);
  out[axis] = k && k->elements.size() == 1 ? dim_of(k->elements[0]) : Dim{};
  c.set_shape(0, out);
  c.set_shape(1, std::move(out));
}

void compress(InferContext& c) {
  const auto* data = c.shape(0);
  if (!c.node().attrs.has("axis")) return c.set_shape(0, SymbolicShape(1));
  if (!data) return;
  SymbolicShape out = *data;
  out[static_cast<size_t>(c.axis(c.node().attrs.integer("axis", 0), data->size()))] = {};
  c.set_shape(0, std::move(out));
}

}  // namespace repquant::shapes
