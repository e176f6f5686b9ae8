#pragma once
// A permuted reading of a row-major buffer, so that chains of reshape and transpose cost a step
// only where the order of elements really changes; chains of slices, concats and repetitions of
// whole rows cost one step.
#include <memory>
#include <optional>
#include <vector>

#include "repquant/core/tensor.h"

namespace repquant::lowering {

// The value's elements are those of the buffer, viewed as `dims`, with axes in the order `perm`.
// Empty perm: the buffer's own order.
struct View {
  Shape dims;
  std::vector<int> perm;
  // Instead of dims and perm: the value is these rows of the buffer, of `width` elements each.
  std::shared_ptr<const std::vector<int32_t>> rows;
  int64_t width = 0;
  bool identity() const { return perm.empty() && rows == nullptr; }
  bool operator==(const View&) const = default;
};

// `view` read as `item`, then its axes permuted (axis i of the result is axis perm[i]). nullopt
// when the axes of `item` do not fall on those of the view: the caller then has to move the data
// first.
std::optional<View> transposed(const View& view, const Shape& item, const std::vector<int>& perm);

// The view as rows, of a value with items `item` in a buffer of `elements` elements: their width
// divides the last axis of the item. nullopt: the last axis is not contiguous in the buffer.
std::optional<View> as_rows(const View& view, const Shape& item, int64_t elements);
// Of views as rows; `axis` is none but the last. The results are views as rows, or the identity.
View sliced_rows(const View& view, const Shape& item, int64_t axis, int64_t start, int64_t stop,
                 int64_t step);
View transposed_rows(const View& view, const Shape& item, const std::vector<int>& perm);
// From items `item` to `target`, of equal rank: axes of length 1 repeated.
View repeated_rows(const View& view, const Shape& item, const Shape& target);
// Parts of one buffer and width, joined along an axis.
View joined_rows(const std::vector<View>& views, const std::vector<Shape>& items, int64_t axis);

}  // namespace repquant::lowering
