#pragma once
// Numbers that say how good an answer is. All sums in double, in index order.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace repquant {

// What a classifier answered, item by item.
struct Scores {
  int64_t classes = 0;
  std::vector<float> logits;       // [count][classes]
  std::vector<int64_t> labels;     // [count], -1: unknown
  std::vector<std::string> names;  // [count]
  // Answers of rank 3, [N, positions, classes / positions], name a class at each position.
  int64_t positions = 1;
  bool signal = false;         // answers of higher rank: images, noise; nothing is ranked
  std::vector<float> targets;  // [count][classes]; empty: none
  int64_t count() const { return static_cast<int64_t>(labels.size()); }
  std::span<const float> row(int64_t i) const {
    return std::span<const float>(logits).subspan(static_cast<size_t>(i * classes),
                                                  static_cast<size_t>(classes));
  }
  bool has_labels() const;  // every label known
  bool operator==(const Scores&) const = default;
};

// Ranking: larger first, ties to the lower index, NaN last.
int64_t argmax(std::span<const float> values);
std::vector<int64_t> top_k(std::span<const float> values, int64_t k);  // min(k, size) indices
std::vector<double> softmax(std::span<const float> logits);

struct Interval {
  double low = 0.0, high = 0.0;
};

// Percent, 0 .. 100. Items without a label throw kInvalidArgument.
double top_k_percent(const Scores& scores, int64_t k);
inline double top1(const Scores& scores) { return top_k_percent(scores, 1); }
inline double top5(const Scores& scores) { return top_k_percent(scores, 5); }
int64_t top_k_correct(const Scores& scores, int64_t k);
// Percent of the positions for which both name the same class.
double agreement(const Scores& a, const Scores& b);
// Mean over the items of KL(softmax(reference) || softmax(other)), in nats.
double mean_kl(const Scores& reference, const Scores& other);

// Wilson score interval of a share, in percent; count >= 1.
Interval wilson_interval(int64_t successes, int64_t count, double z = 1.959963984540054);
// Binomial standard error of a share, in percent points.
double standard_error(int64_t successes, int64_t count);

// Top-1 of b minus top-1 of a over the same items, in percent points.
struct PairedDifference {
  double difference = 0.0;
  double standard_error = 0.0;     // of the mean of the per-item differences (n - 1)
  Interval interval95;             // normal approximation
  int64_t only_a = 0, only_b = 0;  // items that only one of them has right
  double mcnemar_p = 1.0;          // exact two-sided test of only_a against only_b
};
PairedDifference paired_difference(const Scores& a, const Scores& b);

// Mean over all elements of (answer - target)^2; targets must be there.
double target_mse(const Scores& scores);
// 10 log10 of the energy of the reference's answers over that of the difference.
double output_snr_db(const Scores& reference, const Scores& other);

// Signals. 10 log10(sum x^2 / sum (x - y)^2): +infinity when equal, -infinity when only x is 0.
double sqnr_db(std::span<const float> reference, std::span<const float> other);
// 1 when both are 0, 0 when one is.
double cosine(std::span<const float> a, std::span<const float> b);
double mse(std::span<const float> a, std::span<const float> b);
double psnr_db(std::span<const float> a, std::span<const float> b, double peak);

}  // namespace repquant
