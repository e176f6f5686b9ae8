// Views as rows against element positions moved one by one.
#include <numeric>

#include <gtest/gtest.h>

#include "repquant/lower/view.h"

namespace repquant::lowering {
namespace {

// Positions of the buffer, in the order of the value.
struct Value {
  Shape item;
  std::vector<int64_t> at;
};

std::vector<int64_t> read(const View& view) {
  std::vector<int64_t> at;
  for (const int32_t row : *view.rows) {
    for (int64_t i = 0; i < view.width; ++i) at.push_back(row * view.width + i);
  }
  return at;
}

// Element `index` of the new value is element from(index) of the old one.
template <class From> Value moved(const Value& value, const Shape& item, From from) {
  Value result{item, {}};
  Shape index(item.size(), 0);
  for (int64_t i = 0; i < element_count(item); ++i) {
    const Shape source = from(index);
    int64_t place = 0;
    for (size_t axis = 0; axis < source.size(); ++axis)
      place = place * value.item[axis] + source[axis];
    result.at.push_back(value.at[static_cast<size_t>(place)]);
    for (size_t axis = item.size(); axis-- > 0;) {
      if (++index[axis] < item[axis]) break;
      index[axis] = 0;
    }
  }
  return result;
}

Value iota(const Shape& item) {
  Value value{item, std::vector<int64_t>(static_cast<size_t>(element_count(item)))};
  std::iota(value.at.begin(), value.at.end(), int64_t{0});
  return value;
}

TEST(ViewRows, MovesFollowTheElements) {
  Value value = iota({4, 6, 8});
  View view = *as_rows({}, value.item, 4 * 6 * 8);
  EXPECT_EQ(view.width, 8);
  view = transposed_rows(view, value.item, {1, 0, 2});
  value = moved(value, {6, 4, 8}, [](const Shape& i) { return Shape{i[1], i[0], i[2]}; });
  EXPECT_EQ(read(view), value.at);
  view = sliced_rows(view, value.item, 0, 1, 6, 2);
  value = moved(value, {3, 4, 8}, [](const Shape& i) { return Shape{1 + 2 * i[0], i[1], i[2]}; });
  EXPECT_EQ(read(view), value.at);
  value.item = {3, 1, 4, 8};  // a reshape moves nothing
  view = repeated_rows(*as_rows(view, value.item, 0), value.item, {3, 5, 4, 8});
  value = moved(value, {3, 5, 4, 8}, [](const Shape& i) { return Shape{i[0], 0, i[2], i[3]}; });
  EXPECT_EQ(read(view), value.at);
}

// A last axis longer than the rows, and one that is shorter.
TEST(ViewRows, RowsFitTheLastAxis) {
  const View turned{{6, 4, 10}, {1, 0, 2}, nullptr, 0};  // the value [4, 6, 10] lies as [6, 4, 10]
  Value value = moved(iota({6, 4, 10}), {4, 6, 10}, [](const Shape& i) {
    return Shape{i[1], i[0], i[2]};
  });
  value.item = {4, 60};
  View view = *as_rows(turned, value.item, 240);
  EXPECT_EQ(view.width, 10);
  EXPECT_EQ(read(view), value.at);
  EXPECT_EQ(read(sliced_rows(view, value.item, 0, 2, 4, 1)),
            moved(value, {2, 60}, [](const Shape& i) {
              return Shape{2 + i[0], i[1]};
            }).at);
  value.item = {4, 12, 5};
  view = *as_rows(turned, value.item, 240);
  EXPECT_EQ(view.width, 5);
  EXPECT_EQ(read(transposed_rows(view, value.item, {1, 0, 2})),
            moved(value, {12, 4, 5}, [](const Shape& i) {
              return Shape{i[1], i[0], i[2]};
            }).at);
  EXPECT_FALSE(as_rows({{6, 40}, {1, 0}, nullptr, 0}, {40, 6}, 240).has_value());
}

TEST(ViewRows, JoinsPartsOfOneBuffer) {
  const Value value = iota({3, 4, 2});
  const View whole = *as_rows({}, value.item, 24);
  const View joined =
      joined_rows({sliced_rows(whole, value.item, 1, 3, 4, 1), whole}, {{3, 1, 2}, {3, 4, 2}}, 1);
  EXPECT_EQ(read(joined), moved(value, {3, 5, 2}, [](const Shape& i) {
                            return Shape{i[0], i[1] == 0 ? 3 : i[1] - 1, i[2]};
                          }).at);
}

}  // namespace
}  // namespace repquant::lowering
