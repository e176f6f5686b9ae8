// Views as rows: every operation picks from the list of rows.
#include <algorithm>
#include <numeric>

#include "repquant/core/error.h"
#include "repquant/lower/view.h"

namespace repquant::lowering {
namespace {

using Index = std::vector<int32_t>;

View of_rows(Index index, int64_t width) {
  View view;
  view.rows = std::make_shared<const Index>(std::move(index));
  view.width = width;
  return view;
}

// The item with its last axis in units of rows: shape of the list of rows.
Shape row_shape(const View& view, const Shape& item) {
  Shape shape = item;
  shape.back() /= view.width;
  return shape;
}

// index[place] for every place of `shape` in row-major order; strides by axis of `shape`.
Index picked(const Index& from, const Shape& shape, const Shape& strides, int64_t offset) {
  Index index(static_cast<size_t>(element_count(shape)));
  for (size_t i = 0; i < index.size(); ++i) {
    int64_t rest = static_cast<int64_t>(i), at = offset;
    for (size_t axis = shape.size(); axis-- > 0;) {
      at += rest % shape[axis] * strides[axis];
      rest /= shape[axis];
    }
    index[i] = from[static_cast<size_t>(at)];
  }
  return index;
}

Shape strides_of(const Shape& shape) {
  Shape strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

Index counted(int64_t count) {
  Index index(static_cast<size_t>(count));
  std::iota(index.begin(), index.end(), 0);
  return index;
}

}  // namespace

std::optional<View> as_rows(const View& view, const Shape& item, int64_t elements) {
  if (item.empty()) return std::nullopt;
  Index index;
  int64_t width = item.back();
  if (view.rows != nullptr) {
    index = *view.rows;
    width = view.width;
  } else if (view.perm.empty()) {
    index = counted(elements / width);
  } else {
    if (view.perm.back() + 1 != static_cast<int>(view.dims.size())) return std::nullopt;
    width = view.dims.back();
    const Shape strides = strides_of(Shape(view.dims.begin(), view.dims.end() - 1));
    Shape shape, order;
    for (size_t i = 0; i + 1 < view.perm.size(); ++i) {
      shape.push_back(view.dims[static_cast<size_t>(view.perm[i])]);
      order.push_back(strides[static_cast<size_t>(view.perm[i])]);
    }
    index = picked(counted(elements / width), shape, order, 0);
  }
  const int64_t common = std::gcd(width, item.back());
  if (common == width) return of_rows(std::move(index), width);
  const int64_t parts = width / common;  // shorter rows, until they fit the last axis
  Index finer;
  for (const int32_t row : index) {
    for (int64_t i = 0; i < parts; ++i) finer.push_back(static_cast<int32_t>(row * parts + i));
  }
  return of_rows(std::move(finer), common);
}

View sliced_rows(const View& view, const Shape& item, int64_t axis, int64_t start, int64_t stop,
                 int64_t step) {
  Shape shape = row_shape(view, item), strides = strides_of(shape);
  const auto a = static_cast<size_t>(axis);
  const int64_t offset = start * strides[a];
  shape[a] = (stop - start + step - 1) / step;
  strides[a] *= step;
  return of_rows(picked(*view.rows, shape, strides, offset), view.width);
}

View transposed_rows(const View& view, const Shape& item, const std::vector<int>& perm) {
  const Shape from = row_shape(view, item), strides = strides_of(from);
  Shape shape, order;
  for (const int axis : perm) {
    shape.push_back(from[static_cast<size_t>(axis)]);
    order.push_back(strides[static_cast<size_t>(axis)]);
  }
  return of_rows(picked(*view.rows, shape, order, 0), view.width);
}

View repeated_rows(const View& view, const Shape& item, const Shape& target) {
  const Shape from = row_shape(view, item);
  Shape shape = row_shape(view, target), strides = strides_of(from);
  for (size_t i = 0; i < shape.size(); ++i) {
    if (from[i] == 1 && shape[i] != 1) strides[i] = 0;
  }
  return of_rows(picked(*view.rows, shape, strides, 0), view.width);
}

View joined_rows(const std::vector<View>& views, const std::vector<Shape>& items, int64_t axis) {
  const Shape& first = items[0];
  const int64_t outer =
      std::accumulate(first.begin(), first.begin() + axis, int64_t{1}, std::multiplies<int64_t>());
  Index index;
  for (int64_t o = 0; o < outer; ++o) {
    for (const View& view : views) {
      const auto block = static_cast<std::ptrdiff_t>(view.rows->size()) / outer;
      index.insert(index.end(), view.rows->begin() + o * block,
                   view.rows->begin() + (o + 1) * block);
    }
  }
  return of_rows(std::move(index), views[0].width);
}

}  // namespace repquant::lowering
