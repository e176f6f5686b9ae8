#include "repquant/lower/view.h"

#include <numeric>
#include <random>

#include <gtest/gtest.h>

namespace repquant::lowering {
namespace {

// Elements of a permuted reading, as positions in the buffer.
std::vector<int64_t> positions(const View& view, int64_t count) {
  std::vector<int64_t> result(static_cast<size_t>(count));
  std::iota(result.begin(), result.end(), 0);
  if (view.identity()) return result;
  std::vector<int64_t> strides(view.dims.size(), 1);
  for (size_t i = view.dims.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * view.dims[i];
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, at = 0;
    for (size_t axis = view.perm.size(); axis-- > 0;) {
      const size_t from = static_cast<size_t>(view.perm[axis]);
      at += rest % view.dims[from] * strides[from];
      rest /= view.dims[from];
    }
    result[static_cast<size_t>(i)] = at;
  }
  return result;
}

// The same by moving the elements.
std::vector<int64_t> moved(const std::vector<int64_t>& values, const Shape& item,
                           const std::vector<int>& perm) {
  View view{item, perm};
  std::vector<int64_t> result;
  for (const int64_t p : positions(view, static_cast<int64_t>(values.size()))) {
    result.push_back(values[static_cast<size_t>(p)]);
  }
  return result;
}

TEST(View, PatchesCancelToRows) {
  const View channels_first{{6, 5}, {1, 0}};  // [5, 2, 3] read as [5, 6], back to [6, 5]
  const auto view = transposed(channels_first, {5, 6}, {1, 0});
  ASSERT_TRUE(view.has_value());
  EXPECT_TRUE(view->identity());
}

TEST(View, AxesOfLengthOneCostNothing) {
  const auto view = transposed({}, {1, 7, 1, 3}, {2, 1, 0, 3});
  ASSERT_TRUE(view.has_value());
  EXPECT_TRUE(view->identity());
}

TEST(View, RefusesAxesThatCrossItsOwn) {
  EXPECT_FALSE(transposed(View{{4, 6}, {1, 0}}, {4, 6}, {1, 0}).has_value());
}

TEST(View, ChainsEqualMovedElements) {
  std::mt19937 random(7);
  const std::vector<Shape> items = {{2, 3, 4, 5}, {6, 20},         {2, 60},
                                    {24, 5},      {2, 3, 20},      {120},
                                    {2, 12, 5},   {2, 3, 2, 2, 5}, {1, 6, 1, 20}};
  int composed = 0;
  for (int trial = 0; trial < 200; ++trial) {
    View view;
    std::vector<int64_t> values = positions(view, 120);
    for (int depth = 0; depth < 4; ++depth) {
      const Shape& item = items[random() % items.size()];
      std::vector<int> perm(item.size());
      std::iota(perm.begin(), perm.end(), 0);
      std::shuffle(perm.begin(), perm.end(), random);
      const auto next = transposed(view, item, perm);
      if (!next) continue;
      ++composed;
      view = *next;
      values = moved(values, item, perm);
      ASSERT_EQ(positions(view, 120), values);
    }
  }
  EXPECT_GT(composed, 300);
}

}  // namespace
}  // namespace repquant::lowering
