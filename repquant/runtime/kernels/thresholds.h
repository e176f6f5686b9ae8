#pragma once
// Log codes of many values at once: a chunk is counted against one threshold at a time, without
// branches or search. Equal to log_code of core/format.
#include <algorithm>
#include <cstdint>

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

}  // namespace repquant::runtime
