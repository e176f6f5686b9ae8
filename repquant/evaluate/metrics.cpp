#include "repquant/evaluate/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

// Whether a stands before b in the ranking, equal values aside.
bool above(float a, float b) { return a > b || (std::isnan(b) && !std::isnan(a)); }

void check_same_items(const Scores& a, const Scores& b) {
  if (a.count() != b.count() || a.names != b.names) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("evaluate: expected scores of the same items, got {} and {} items",
                            a.count(), b.count()));
  }
}

void check_labels(const Scores& scores) {
  if (!scores.has_labels()) {
    throw Error(ErrorCode::kInvalidArgument,
                "evaluate: top-1: expected labels, got data without labels",
                "pass --labels, or use agreement and kl, which need none");
  }
}

// Logarithm of the softmax.
std::vector<double> log_softmax(std::span<const float> logits) {
  double top = -std::numeric_limits<double>::infinity(), sum = 0.0;
  for (const float x : logits) top = std::max(top, static_cast<double>(x));
  for (const float x : logits) sum += std::exp(x - top);
  const double log_sum = std::log(sum);
  std::vector<double> result;
  result.reserve(logits.size());
  for (const float x : logits) result.push_back((x - top) - log_sum);
  return result;
}

bool in_top(std::span<const float> values, int64_t label, int64_t k) {
  if (label >= static_cast<int64_t>(values.size())) return false;
  const float own = values[static_cast<size_t>(label)];
  int64_t rank = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const bool before = static_cast<int64_t>(i) < label;
    if (above(values[i], own) || (before && !above(own, values[i]))) ++rank;
  }
  return rank < k && !std::isnan(own);
}

double log_choose(int64_t n, int64_t k) {
  return std::lgamma(static_cast<double>(n) + 1) - std::lgamma(static_cast<double>(k) + 1) -
         std::lgamma(static_cast<double>(n - k) + 1);
}

// Two-sided binomial test of equal chances.
double exact_mcnemar(int64_t only_a, int64_t only_b) {
  const int64_t n = only_a + only_b, fewer = std::min(only_a, only_b);
  if (only_a == only_b) return 1.0;
  double tail = 0.0;
  for (int64_t i = 0; i <= fewer; ++i) {
    tail += std::exp(log_choose(n, i) - static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2.0 * tail);
}

template <class F> double sum_over(std::span<const float> a, std::span<const float> b, F term) {
  REPQUANT_CHECK(a.size() == b.size());
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i)
    sum += term(static_cast<double>(a[i]), static_cast<double>(b[i]));
  return sum;
}

double squared_error(std::span<const float> a, std::span<const float> b) {
  return sum_over(a, b, [](double x, double y) { return (x - y) * (x - y); });
}

double decibel(double signal, double noise) {
  if (noise == 0.0) return std::numeric_limits<double>::infinity();
  return 10.0 * std::log10(signal / noise);  // signal 0: -infinity
}

}  // namespace

bool Scores::has_labels() const {
  return !labels.empty() &&
         std::all_of(labels.begin(), labels.end(), [](int64_t label) { return label >= 0; });
}

int64_t argmax(std::span<const float> values) {
  REPQUANT_CHECK(!values.empty());
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    if (above(values[i], values[best])) best = i;
  }
  return static_cast<int64_t>(best);
}

std::vector<int64_t> top_k(std::span<const float> values, int64_t k) {
  std::vector<int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto count = std::min<int64_t>(k, static_cast<int64_t>(values.size()));
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int64_t i, int64_t j) {
    const float a = values[static_cast<size_t>(i)], b = values[static_cast<size_t>(j)];
    if (above(a, b)) return true;
    return !above(b, a) && i < j;
  });
  order.resize(static_cast<size_t>(count));
  return order;
}

std::vector<double> softmax(std::span<const float> logits) {
  std::vector<double> values = log_softmax(logits);
  for (double& value : values) value = std::exp(value);
  return values;
}

int64_t top_k_correct(const Scores& scores, int64_t k) {
  check_labels(scores);
  int64_t correct = 0;
  for (int64_t i = 0; i < scores.count(); ++i) {
    correct += in_top(scores.row(i), scores.labels[static_cast<size_t>(i)], k) ? 1 : 0;
  }
  return correct;
}

double top_k_percent(const Scores& scores, int64_t k) {
  return 100.0 * static_cast<double>(top_k_correct(scores, k)) /
         static_cast<double>(scores.count());
}

double agreement(const Scores& a, const Scores& b) {
  check_same_items(a, b);
  REPQUANT_CHECK(a.count() > 0);
  if (a.classes != b.classes && (a.positions > 1 || b.positions > 1))
    throw Error(ErrorCode::kInvalidArgument, "evaluate: agreement: expected answers of one shape");
  int64_t same = 0;
  const auto width = static_cast<size_t>(a.classes / a.positions);
  for (int64_t i = 0; i < a.count(); ++i) {
    if (a.positions == 1) {
      same += argmax(a.row(i)) == argmax(b.row(i)) ? 1 : 0;
      continue;
    }
    for (size_t p = 0; p < static_cast<size_t>(a.positions); ++p) {
      const auto x = a.row(i).subspan(p * width, width), y = b.row(i).subspan(p * width, width);
      same += argmax(x) == argmax(y) ? 1 : 0;
    }
  }
  return 100.0 * static_cast<double>(same) / static_cast<double>(a.count() * a.positions);
}

double mean_kl(const Scores& reference, const Scores& other) {
  check_same_items(reference, other);
  if (reference.classes != other.classes || reference.count() == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("evaluate: kl: expected as many classes, got {} and {}",
                            reference.classes, other.classes));
  }
  double sum = 0.0;
  for (int64_t i = 0; i < reference.count(); ++i) {
    const std::vector<double> p = log_softmax(reference.row(i)), q = log_softmax(other.row(i));
    for (size_t c = 0; c < p.size(); ++c) {
      const double probability = std::exp(p[c]);
      if (probability > 0.0) sum += probability * (p[c] - q[c]);
    }
  }
  return sum / static_cast<double>(reference.count());
}

Interval wilson_interval(int64_t successes, int64_t count, double z) {
  REPQUANT_CHECK(count >= 1 && successes >= 0 && successes <= count);
  const double n = static_cast<double>(count), p = static_cast<double>(successes) / n;
  const double center = p + z * z / (2.0 * n), scale = 1.0 + z * z / n;
  const double half = z * std::sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n));
  return {100.0 * std::max(0.0, (center - half) / scale),
          100.0 * std::min(1.0, (center + half) / scale)};
}

double standard_error(int64_t successes, int64_t count) {
  REPQUANT_CHECK(count >= 1 && successes >= 0 && successes <= count);
  const double n = static_cast<double>(count), p = static_cast<double>(successes) / n;
  return 100.0 * std::sqrt(p * (1.0 - p) / n);
}

PairedDifference paired_difference(const Scores& a, const Scores& b) {
  check_same_items(a, b);
  check_labels(a);
  PairedDifference result;
  for (int64_t i = 0; i < a.count(); ++i) {
    const int64_t label = a.labels[static_cast<size_t>(i)];
    const bool right_a = in_top(a.row(i), label, 1), right_b = in_top(b.row(i), label, 1);
    result.only_a += right_a && !right_b ? 1 : 0;
    result.only_b += right_b && !right_a ? 1 : 0;
  }
  // The differences are -1 only_a times, +1 only_b times, else 0.
  const double n = static_cast<double>(a.count());
  const double mean = static_cast<double>(result.only_b - result.only_a) / n;
  const double squares = static_cast<double>(result.only_a + result.only_b) - n * mean * mean;
  const double variance =
      n > 1 ? std::max(0.0, squares) / (n - 1) : std::numeric_limits<double>::infinity();
  constexpr double kZ95 = 1.959963984540054;
  result.difference = 100.0 * mean;
  result.standard_error = 100.0 * std::sqrt(variance / n);
  result.interval95 = {result.difference - kZ95 * result.standard_error,
                       result.difference + kZ95 * result.standard_error};
  result.mcnemar_p = exact_mcnemar(result.only_a, result.only_b);
  return result;
}

double target_mse(const Scores& scores) {
  REPQUANT_CHECK(!scores.targets.empty());
  return mse(scores.targets, scores.logits);
}

double output_snr_db(const Scores& reference, const Scores& other) {
  check_same_items(reference, other);
  if (reference.classes != other.classes)
    throw Error(ErrorCode::kInvalidArgument, "evaluate: snr: expected answers of one shape");
  return sqnr_db(reference.logits, other.logits);
}

double sqnr_db(std::span<const float> reference, std::span<const float> other) {
  return decibel(sum_over(reference, reference, [](double x, double) { return x * x; }),
                 squared_error(reference, other));
}

double cosine(std::span<const float> a, std::span<const float> b) {
  const double dot = sum_over(a, b, [](double x, double y) { return x * y; });
  const double aa = sum_over(a, a, [](double x, double) { return x * x; });
  const double bb = sum_over(b, b, [](double x, double) { return x * x; });
  if (aa == 0.0 || bb == 0.0) return aa == bb ? 1.0 : 0.0;
  return dot / std::sqrt(aa) / std::sqrt(bb);
}

double mse(std::span<const float> a, std::span<const float> b) {
  return a.empty() ? 0.0 : squared_error(a, b) / static_cast<double>(a.size());
}

double psnr_db(std::span<const float> a, std::span<const float> b, double peak) {
  return decibel(peak * peak, mse(a, b));
}

}  // namespace repquant
