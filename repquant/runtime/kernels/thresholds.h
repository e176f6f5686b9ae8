#pragma once
// Log codes of many values at once: a chunk is counted against one threshold at a time, without
// branches or search. Equal to log_code of core/format.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

namespace repquant::runtime {

// codes[i] = #{k < levels : x[i] + shift < thresholds[k]}
template <bool kShifted>
inline void count_thresholds(const float* x, int64_t count, float shift, const float* thresholds,
                             int64_t levels, uint8_t* codes) {
  constexpr int64_t kChunk = 64;
  float value[kChunk];
  int32_t below[kChunk];
  for (int64_t first = 0; first < count; first += kChunk) {
    const int64_t n = std::min(kChunk, count - first);
    const float* from = x + first;
    for (int64_t i = 0; i < n; ++i) value[i] = kShifted ? from[i] + shift : from[i];
    for (int64_t i = n; i < kChunk; ++i) value[i] = 0;
    for (int64_t i = 0; i < kChunk; ++i) below[i] = 0;
    for (int64_t level = 0; level < levels; ++level) {
      const float threshold = thresholds[level];
      for (int64_t i = 0; i < kChunk; ++i) below[i] += value[i] < threshold ? 1 : 0;
    }
    uint8_t* to = codes + first;
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<uint8_t>(below[i]);
  }
}

// Many thresholds: the sign, exponent and first five mantissa bits of a value name a bucket, in
// which at most one threshold may lie; the code is the number of thresholds above the bucket, and
// one more if the value lies below that one.
class ThresholdBuckets {
 public:
  static constexpr int kShift = 18;
  static constexpr int64_t kMost = 2048;

  ThresholdBuckets(const float* thresholds, int64_t count) {
    const int32_t low = bucket(thresholds[count - 1]), high = bucket(thresholds[0]);
    first_ = low - 1;
    last_ = high + 1;
    usable_ = last_ - first_ < kMost && thresholds[count - 1] >= std::numeric_limits<float>::min();
    if (!usable_) return;
    int64_t k = count;  // thresholds [k, count) are done, from the smallest on
    for (int32_t b = first_; b <= last_; ++b) {
      const int64_t at = b - first_;
      next_[at] = -std::numeric_limits<float>::infinity();
      int inside = 0;
      for (; k > 0 && bucket(thresholds[k - 1]) == b; --k) {
        // A threshold at the very start of its bucket is above nothing in it.
        if (thresholds[k - 1] == std::bit_cast<float>(b << kShift)) continue;
        next_[at] = thresholds[k - 1];
        ++inside;
      }
      usable_ = usable_ && inside <= 1;
      base_[at] = static_cast<int32_t>(k);
    }
  }

  bool usable() const { return usable_; }
  // 0 for NaN.
  int32_t operator()(float x) const {
    const int64_t at = std::clamp(bucket(x), first_, last_) - first_;
    const int32_t code = base_[at] + (x < next_[at] ? 1 : 0);
    return x == x ? code : 0;
  }

  // For vector rows.
  int32_t first() const { return first_; }
  int32_t last() const { return last_; }
  const float* next() const { return next_; }
  const int32_t* base() const { return base_; }

 private:
  static int32_t bucket(float x) { return std::bit_cast<int32_t>(x) >> kShift; }

  int32_t first_ = 0, last_ = 0;
  bool usable_ = false;
  float next_[kMost + 2];
  int32_t base_[kMost + 2];
};

inline constexpr int64_t kManyThresholds = 32, kManyValues = 512;  // where buckets pay

}  // namespace repquant::runtime
