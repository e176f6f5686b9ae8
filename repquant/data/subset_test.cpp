#include "repquant/data/subset.h"

#include <algorithm>
#include <set>

#include "repquant/data/testing.h"

namespace repquant {
namespace {

using namespace testing;

// Seed 0 through splitmix64 gives the published first outputs of that generator.
TEST(Random, GoldenValues) {
  Random random(0);
  const std::vector<uint64_t> first{random.next(), random.next(), random.next()};
  EXPECT_EQ(first,
            (std::vector<uint64_t>{0x99ec5f36cb75f2b4u, 0xbf6e1f784956452au, 0x1a5f849d4933e6e0u}));
}

TEST(Random, BelowIsInRangeAndEven) {
  Random random(7);
  int counts[6] = {};
  for (int i = 0; i < 60000; ++i) ++counts[random.below(6)];
  // Five standard deviations of a binomial count: 5 * sqrt(60000 * 5 / 36) = 457.
  for (const int count : counts) EXPECT_NEAR(count, 10000, 457);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(random.below(1), 0u);
}

TEST(Subset, SortedDistinctAndFixedBySeed) {
  const auto subset = draw_subset(200, 32, 0);
  EXPECT_EQ(subset, draw_subset(200, 32, 0));
  EXPECT_NE(subset, draw_subset(200, 32, 1));
  ASSERT_EQ(subset.size(), 32u);
  EXPECT_TRUE(std::is_sorted(subset.begin(), subset.end()));
  EXPECT_EQ(std::set<int64_t>(subset.begin(), subset.end()).size(), 32u);
  EXPECT_GE(subset.front(), 0);
  EXPECT_LT(subset.back(), 200);
  EXPECT_EQ(draw_subset(5, 5, 9), (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_TRUE(draw_subset(5, 0, 9).empty());
}

TEST(Subset, EveryItemIsEquallyLikely) {
  int counts[10] = {};
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    for (const int64_t i : draw_subset(10, 3, seed)) ++counts[i];
  }
  // Expected 6000 each, standard deviation sqrt(20000 * 0.3 * 0.7) = 65; five of them.
  for (const int count : counts) EXPECT_NEAR(count, 6000, 325);
}

TEST(Subset, TooManyIsAnError) {
  expect_error(ErrorCode::kInvalidArgument, "expected 0 to 10 samples, got 32",
               [] { draw_subset(10, 32, 0); });
  expect_error(ErrorCode::kInvalidArgument, "got -1", [] { draw_subset(10, -1, 0); });
}

TEST(Overlap, ByContentNotByName) {
  const TempDir dir;
  for (int i = 0; i < 5; ++i) {
    const auto bytes = encode_png(crop(synthetic_image(40, 40), i, i, 4, 4));
    write_bytes(dir / ("a/" + std::to_string(i) + ".png"), bytes);
    if (i == 1 || i == 4) write_bytes(dir / ("b/other" + std::to_string(i) + ".png"), bytes);
  }
  write_bytes(dir / "b/0.png", encode_png(crop(synthetic_image(40, 40), 9, 3, 4, 4)));
  const auto a = open_dataset(dir / "a"), b = open_dataset(dir / "b");
  const std::vector<int64_t> all{4, 3, 2, 1, 0}, some{0, 2, 4};
  EXPECT_EQ(overlap(*a, all, *b), (std::vector<int64_t>{1, 4}));
  EXPECT_EQ(overlap(*a, some, *b), (std::vector<int64_t>{4}));
  EXPECT_NE(subset_digest(*a, all), subset_digest(*a, some));
  EXPECT_EQ(subset_digest(*a, some), subset_digest(*open_dataset(dir / "a"), some));
}

}  // namespace
}  // namespace repquant
