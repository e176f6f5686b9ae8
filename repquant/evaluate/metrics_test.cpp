#include "repquant/evaluate/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Scores scores_of(std::vector<std::vector<float>> rows, std::vector<int64_t> labels) {
  Scores scores;
  scores.classes = static_cast<int64_t>(rows.at(0).size());
  for (const auto& row : rows) scores.logits.insert(scores.logits.end(), row.begin(), row.end());
  for (size_t i = 0; i < labels.size(); ++i) scores.names.push_back(std::to_string(i));
  scores.labels = std::move(labels);
  return scores;
}

// Item i is right when correct[i]; two classes, label 0.
Scores right_or_wrong(const std::vector<bool>& correct) {
  std::vector<std::vector<float>> rows;
  for (const bool right : correct)
    rows.push_back(right ? std::vector<float>{1, 0} : std::vector<float>{0, 1});
  return scores_of(rows, std::vector<int64_t>(correct.size(), 0));
}

TEST(Ranking, TiesGoToTheLowerIndexAndNanComesLast) {
  const std::vector<float> values{1, 3, kNan, 3, -2, 3};
  EXPECT_EQ(argmax(values), 1);
  EXPECT_EQ(top_k(values, 4), (std::vector<int64_t>{1, 3, 5, 0}));
  EXPECT_EQ(top_k(values, 10), (std::vector<int64_t>{1, 3, 5, 0, 4, 2}));
  EXPECT_EQ(argmax(std::vector<float>{kNan, -5}), 1);
}

TEST(TopK, CountsAsTheRankingDoes) {
  const Scores scores = scores_of({{5, 4, 3, 2, 1, 0},
                                   {0, 0, 0, 0, 0, 0},
                                   {0, 0, 0, 0, 0, 0},
                                   {1, kNan, 0, 0, 0, 2},
                                   {1, 2, 3, 4, 5, 6}},
                                  {0, 4, 5, 1, 1});
  // Ranks of the labels: 0; 4 (ties); 5 (ties); never (NaN); 4.
  EXPECT_EQ(top_k_correct(scores, 1), 1);
  EXPECT_EQ(top_k_correct(scores, 4), 1);
  EXPECT_EQ(top_k_correct(scores, 5), 3);
  EXPECT_EQ(top_k_correct(scores, 6), 4);
  EXPECT_DOUBLE_EQ(top1(scores), 20.0);
  EXPECT_DOUBLE_EQ(top5(scores), 60.0);
  for (int64_t i = 0; i < scores.count(); ++i) {
    const auto best = top_k(scores.row(i), 5);
    const bool found =
        std::find(best.begin(), best.end(), scores.labels[static_cast<size_t>(i)]) != best.end();
    EXPECT_EQ(found, i == 0 || i == 1 || i == 4);
  }
}

TEST(TopK, NeedsLabels) {
  const Scores scores = scores_of({{1, 2}, {1, 2}}, {0, -1});
  EXPECT_FALSE(scores.has_labels());
  EXPECT_THROW(top1(scores), Error);
  EXPECT_THROW(paired_difference(scores, scores), Error);
  EXPECT_DOUBLE_EQ(agreement(scores, scores), 100.0);
}

TEST(Agreement, HandComputed) {
  const Scores a = scores_of({{1, 2, 0}, {3, 2, 1}, {0, 0, 1}, {1, 1, 0}}, {-1, -1, -1, -1});
  const Scores b = scores_of({{0, 9, 1}, {1, 2, 3}, {0, 0, 2}, {0, 1, 1}}, {-1, -1, -1, -1});
  EXPECT_DOUBLE_EQ(agreement(a, b), 50.0);  // items 0 and 2
  Scores other = b;
  other.names[3] = "x";
  EXPECT_THROW(agreement(a, other), Error);
}

TEST(Kl, HandComputed) {
  const float ln3 = std::log(3.0f);
  // p = (1/4, 3/4), q = (1/2, 1/2): 1/4 ln(1/2) + 3/4 ln(3/2). Second item: equal up to a shift, 0.
  const Scores a = scores_of({{0, ln3}, {5, 1}}, {-1, -1});
  const Scores b = scores_of({{7, 7}, {105, 101}}, {-1, -1});
  const double expected = (0.25 * std::log(0.5) + 0.75 * std::log(1.5)) / 2;
  // The float logit is off by 2^-25 relative at most.
  EXPECT_NEAR(mean_kl(a, b), expected, 1e-7);
  EXPECT_DOUBLE_EQ(mean_kl(a, a), 0.0);
  EXPECT_GT(mean_kl(b, a), 0.0);
  const Scores far = scores_of({{0, 1000}, {0, -1000}}, {-1, -1});
  EXPECT_DOUBLE_EQ(mean_kl(far, far), 0.0);  // exp underflows, 0 ln 0 = 0
  EXPECT_THROW(mean_kl(a, scores_of({{1, 2, 3}, {1, 2, 3}}, {-1, -1})), Error);
}

TEST(Softmax, SumsToOneAndIsStable) {
  const auto p = softmax(std::vector<float>{1000, 1000 + std::log(3.0f), -1000});
  EXPECT_NEAR(p[1] / p[0], 3.0,
              3 * 1000 * 0x1p-24);  // the float sum near 1000 is off by half a unit
  EXPECT_NEAR(p[0] + p[1] + p[2], 1.0, 1e-15);
  EXPECT_EQ(p[2], 0.0);
}

TEST(Wilson, HandComputed) {
  // 8 of 10 with z = 2: centre (0.8 + 0.2) / 1.4, half 2 sqrt(0.016 + 0.01) / 1.4.
  const Interval interval = wilson_interval(8, 10, 2.0);
  const double half = 2.0 * std::sqrt(0.026) / 1.4;
  EXPECT_NEAR(interval.low, 100 * (1.0 / 1.4 - half), 1e-9);
  EXPECT_NEAR(interval.high, 100 * (1.0 / 1.4 + half), 1e-9);
  EXPECT_DOUBLE_EQ(wilson_interval(0, 10).low, 0.0);
  EXPECT_DOUBLE_EQ(wilson_interval(10, 10).high, 100.0);
  EXPECT_GT(wilson_interval(0, 10).high, 20.0);
  // One score of 80.46 % on 650 images.
  EXPECT_NEAR(standard_error(523, 650), 100 * std::sqrt(523.0 / 650 * 127.0 / 650 / 650), 1e-12);
}

TEST(PairedDifference, HandComputed) {
  // 5 both right, 1 only a, 3 only b, 1 both wrong.
  const Scores a = right_or_wrong({true, true, true, true, true, true, false, false, false, false});
  const Scores b = right_or_wrong({true, true, true, true, true, false, true, true, true, false});
  const PairedDifference result = paired_difference(a, b);
  EXPECT_EQ(result.only_a, 1);
  EXPECT_EQ(result.only_b, 3);
  EXPECT_DOUBLE_EQ(result.difference, 20.0);
  // Sum of squares about the mean: 4 - 10 * 0.04 = 3.6; variance 0.4; error of the mean sqrt(0.04).
  EXPECT_NEAR(result.standard_error, 20.0, 1e-12);
  EXPECT_NEAR(result.interval95.low, 20.0 - 1.959963984540054 * 20.0, 1e-9);
  EXPECT_NEAR(result.interval95.high, 20.0 + 1.959963984540054 * 20.0, 1e-9);
  EXPECT_NEAR(result.mcnemar_p, 2 * (1 + 4) / 16.0, 1e-12);
  const PairedDifference same = paired_difference(a, a);
  EXPECT_DOUBLE_EQ(same.difference, 0.0);
  EXPECT_DOUBLE_EQ(same.interval95.high, 0.0);
  EXPECT_DOUBLE_EQ(same.mcnemar_p, 1.0);
  const PairedDifference one = paired_difference(right_or_wrong({true}), right_or_wrong({false}));
  EXPECT_EQ(one.interval95.low, -kInfinity);
  EXPECT_DOUBLE_EQ(one.mcnemar_p, 1.0);
}

TEST(PairedDifference, ManyDiscordantItems) {
  // 1,000 against 900 of 2,000: the tail is summed in logarithms, no overflow. Normal approximation
  // with continuity: z = (100 - 1) / sqrt(1900) = 2.271, two-sided 0.0231.
  std::vector<bool> a(2000, false), b(2000, true);
  for (size_t i = 0; i < 900; ++i) a[i] = true, b[i] = false;
  for (size_t i = 1900; i < 2000; ++i) b[i] = false;
  EXPECT_NEAR(paired_difference(right_or_wrong(a), right_or_wrong(b)).mcnemar_p, 0.0231, 0.0005);
}

TEST(Signals, HandComputed) {
  const std::vector<float> x{3, -4, 0}, y{3, -3, 1}, zero{0, 0, 0};
  EXPECT_DOUBLE_EQ(mse(x, y), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(sqnr_db(x, y), 10 * std::log10(12.5));
  EXPECT_EQ(sqnr_db(x, x), kInfinity);
  EXPECT_EQ(sqnr_db(zero, zero), kInfinity);
  EXPECT_EQ(sqnr_db(zero, x), -kInfinity);
  EXPECT_NEAR(cosine(x, y), 21.0 / (5.0 * std::sqrt(19.0)), 1e-15);
  EXPECT_EQ(cosine(zero, zero), 1.0);
  EXPECT_EQ(cosine(x, zero), 0.0);
  EXPECT_DOUBLE_EQ(psnr_db(x, y, 255), 10 * std::log10(255.0 * 255.0 * 1.5));
}

}  // namespace
}  // namespace repquant
