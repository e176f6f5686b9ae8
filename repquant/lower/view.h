#pragma once
// A permuted reading of a row-major buffer, so that chains of reshape and transpose cost a step
// only where the order of elements really changes.
#include <optional>
#include <vector>

#include "repquant/core/tensor.h"

namespace repquant::lowering {

// The value's elements are those of the buffer, viewed as `dims`, with axes in the order `perm`.
// Empty perm: the buffer's own order.
struct View {
  Shape dims;
  std::vector<int> perm;
  bool identity() const { return perm.empty(); }
  bool operator==(const View&) const = default;
};

// `view` read as `item`, then its axes permuted (axis i of the result is axis perm[i]). nullopt
// when the axes of `item` do not fall on those of the view: the caller then has to move the data
// first.
std::optional<View> transposed(const View& view, const Shape& item, const std::vector<int>& perm);

}  // namespace repquant::lowering
