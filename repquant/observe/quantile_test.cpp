#include "repquant/observe/quantile.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "repquant/core/error.h"

namespace repquant::observe {
namespace {

std::vector<float> random_values(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.3f, 2.0f);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  for (size_t i = 0; i < n; i += 17) values[i] = 0.0f;  // ties
  return values;
}

DataPass pieces_of(const std::vector<float>& values, size_t width, int64_t pieces) {
  return {pieces,
          [&values, width, pieces](const std::function<void(int64_t, std::span<const float>)>& fn) {
            const size_t rows = values.size() / width;
            for (int64_t p = 0; p < pieces; ++p) {
              const size_t begin =
                  rows * static_cast<size_t>(p) / static_cast<size_t>(pieces) * width;
              const size_t end =
                  rows * static_cast<size_t>(p + 1) / static_cast<size_t>(pieces) * width;
              fn(p, {values.data() + begin, end - begin});
            }
          }};
}

// The definition: linear interpolation at index p (n-1) of the sorted values.
float sorted_quantile(std::vector<float> values, double p) {
  std::sort(values.begin(), values.end());
  const double position = p * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(std::floor(position));
  const size_t high = std::min(low + 1, values.size() - 1);
  const double fraction = position - static_cast<double>(low);
  return static_cast<float>(values[low] +
                            fraction * (static_cast<double>(values[high]) - values[low]));
}

const std::vector<double> kProbabilities{0.0, 1e-5, 0.001, 0.25, 0.5, 0.999, 0.9999, 0.99999, 1.0};

TEST(ExactQuantiles, EqualTheSortedDefinition) {
  for (const size_t n : {size_t{10}, size_t{1000}, size_t{1'000'007}}) {
    const std::vector<float> values = random_values(n, 7);
    const std::vector<float> got = exact_quantiles(pieces_of(values, 1, 3), 1, kProbabilities);
    for (size_t i = 0; i < kProbabilities.size(); ++i) {
      EXPECT_EQ(got[i], sorted_quantile(values, kProbabilities[i]))
          << n << " " << kProbabilities[i];
    }
  }
}

TEST(ExactQuantiles, PerChannelEqualsEachColumnAlone) {
  constexpr size_t rows = 301;
  for (const size_t channels : {size_t{2}, size_t{5}, size_t{32}, size_t{45}, size_t{192}}) {
    const std::vector<float> values = random_values(channels * rows, 3);
    const std::vector<float> got = exact_quantiles(pieces_of(values, channels, 4),
                                                   static_cast<int64_t>(channels), kProbabilities);
    for (size_t c = 0; c < channels; ++c) {
      std::vector<float> column;
      for (size_t r = 0; r < rows; ++r) column.push_back(values[r * channels + c]);
      for (size_t i = 0; i < kProbabilities.size(); ++i) {
        EXPECT_EQ(got[c * kProbabilities.size() + i], sorted_quantile(column, kProbabilities[i]))
            << channels << " channels, channel " << c;
      }
    }
  }
}

TEST(ExactQuantiles, RefusesNan) {
  std::vector<float> values = random_values(100, 1);
  values[50] = NAN;
  EXPECT_THROW(exact_quantiles(pieces_of(values, 1, 2), 1, kProbabilities), Error);
}

}  // namespace
}  // namespace repquant::observe
