#include "repquant/observe/quantile.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "repquant/core/error.h"

namespace repquant::observe {
namespace {

// Maps floats to unsigned keys in the same order.
inline uint32_t key_of(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return bits ^ ((bits & 0x80000000u) != 0 ? 0xffffffffu : 0x80000000u);
}

inline float value_of(uint32_t key) {
  return std::bit_cast<float>(key ^ ((key & 0x80000000u) != 0 ? 0x80000000u : 0xffffffffu));
}

struct Wanted {
  uint64_t rank = 0;    // remaining rank inside the prefix
  uint32_t prefix = 0;  // leading bits found so far
};

// One histogram a distinct (channel, prefix); the same for all ranks that share it.
struct Level {
  int shift = 0;  // bits below this level
  int bits = 0;
};

// Finds the values whose leading bits are among those wanted of their channel. Quantiles are tails:
// nearly every group of values holds none, which a loop without branches tells.
class PrefixRows {
 public:
  explicit PrefixRows(const std::vector<std::vector<uint32_t>>& prefixes)
      : channels_(prefixes.size()), width_(channels_ * ((kGroup + channels_ - 1) / channels_)) {
    size_t most = 0;
    for (const auto& list : prefixes) most = std::max(most, list.size());
    rows_.assign(most, std::vector<uint32_t>(width_, kNone));
    for (size_t i = 0; i < width_; ++i) {
      const std::vector<uint32_t>& list = prefixes[i % channels_];
      for (size_t k = 0; k < list.size(); ++k) rows_[k][i] = list[k];
    }
  }

  // `values` starts at channel 0.
  template <class Fn> void for_each_match(std::span<const float> values, int shift, Fn&& fn) const {
    for (size_t begin = 0; begin < values.size(); begin += width_) {
      const std::span<const float> row =
          values.subspan(begin, std::min(width_, values.size() - begin));
      for (size_t i = 0; i < row.size(); i += kGroup) {
        const size_t count = std::min(kGroup, row.size() - i);
        if (!matches(row.data() + i, i, count, shift)) continue;
        for (size_t k = i; k < i + count; ++k) fn(k % channels_, key_of(row[k]));
      }
    }
  }

 private:
  static constexpr size_t kGroup = 32;
  static constexpr uint32_t kNone = 0xffffffffu;  // longer than any prefix

  bool matches(const float* values, size_t at, size_t count, int shift) const {
    uint32_t hit = 0;
    if (count == kGroup) {
      for (const auto& row : rows_)
        hit |= any_equal<kGroup>(values, row.data() + at, shift, kGroup);
    } else {
      for (const auto& row : rows_) hit |= any_equal<0>(values, row.data() + at, shift, count);
    }
    return hit != 0;
  }

  template <size_t kCount>
  static uint32_t any_equal(const float* values, const uint32_t* prefixes, int shift,
                            size_t count) {
    uint32_t hit = 0;
    for (size_t i = 0; i < (kCount == 0 ? count : kCount); ++i) {
      hit |= static_cast<uint32_t>((key_of(values[i]) >> shift) == prefixes[i]);
    }
    return hit;
  }

  size_t channels_, width_;
  std::vector<std::vector<uint32_t>> rows_;  // [k-th prefix of a channel][position in a row]
};

class Selector {
 public:
  Selector(const DataPass& data, int64_t channels, std::span<const double> p)
      : data_(data), channels_(channels), p_(p) {}

  std::vector<float> run() {
    const std::vector<Level> levels = channels_ == 1
                                          ? std::vector<Level>{{16, 16}, {0, 16}}
                                          : std::vector<Level>{{21, 11}, {10, 11}, {0, 10}};
    for (size_t i = 0; i < levels.size(); ++i) {
      i == 0 ? first(levels[0]) : refine(levels[i], levels[i - 1]);
    }
    return interpolate();
  }

 private:
  void first(const Level& level) {
    const size_t bins = size_t{1} << level.bits;
    std::vector<std::vector<uint32_t>> parts(static_cast<size_t>(data_.pieces));
    std::vector<uint8_t> nan(parts.size(), 0);
    data_.run([&](int64_t slot, std::span<const float> values) {
      std::vector<uint32_t>& counts = parts[static_cast<size_t>(slot)];
      counts.assign(bins * static_cast<size_t>(channels_), 0);
      size_t channel = 0;
      bool bad = false;
      for (const float v : values) {
        bad |= v != v;
        ++counts[channel * bins + (key_of(v) >> level.shift)];
        if (++channel == static_cast<size_t>(channels_)) channel = 0;
      }
      nan[static_cast<size_t>(slot)] = bad ? 1 : 0;
    });
    if (std::find(nan.begin(), nan.end(), uint8_t{1}) != nan.end()) {
      throw Error(ErrorCode::kCorruptFile, "observe: NaN in the calibration activations");
    }
    std::vector<uint64_t> total(bins * static_cast<size_t>(channels_), 0);
    for (const auto& part : parts) {
      for (size_t i = 0; i < part.size(); ++i) total[i] += part[i];
    }
    start_ranks(total, bins, level);
  }

  void start_ranks(const std::vector<uint64_t>& total, size_t bins, const Level& level) {
    wanted_.resize(static_cast<size_t>(channels_));
    fraction_.resize(p_.size());
    for (size_t c = 0; c < wanted_.size(); ++c) {
      const std::span<const uint64_t> counts(total.data() + c * bins, bins);
      uint64_t n = 0;
      for (const uint64_t k : counts) n += k;
      if (n == 0) throw Error(ErrorCode::kInvalidArgument, "observe: no calibration data");
      for (size_t i = 0; i < p_.size(); ++i) {
        const double position = p_[i] * static_cast<double>(n - 1);
        const auto low = static_cast<uint64_t>(std::floor(position));
        fraction_[i] = position - static_cast<double>(low);
        for (const uint64_t rank : {low, std::min(low + 1, n - 1)}) {
          wanted_[c].push_back(descend({rank, 0}, counts, level.bits));
        }
      }
    }
  }

  static Wanted descend(Wanted w, std::span<const uint64_t> counts, int bits) {
    uint32_t bin = 0;
    while (w.rank >= counts[bin]) w.rank -= counts[bin++];
    w.prefix = (w.prefix << bits) | bin;
    return w;
  }

  void refine(const Level& level, const Level& above) {
    const size_t bins = size_t{1} << level.bits;
    // Distinct prefixes by channel.
    std::vector<std::vector<uint32_t>> prefixes(wanted_.size());
    std::vector<size_t> base(wanted_.size() + 1, 0);
    for (size_t c = 0; c < wanted_.size(); ++c) {
      for (const Wanted& w : wanted_[c]) prefixes[c].push_back(w.prefix);
      std::sort(prefixes[c].begin(), prefixes[c].end());
      prefixes[c].erase(std::unique(prefixes[c].begin(), prefixes[c].end()), prefixes[c].end());
      base[c + 1] = base[c] + prefixes[c].size();
    }
    const PrefixRows rows(prefixes);
    std::vector<std::vector<uint32_t>> parts(static_cast<size_t>(data_.pieces));
    data_.run([&](int64_t slot, std::span<const float> values) {
      std::vector<uint32_t>& counts = parts[static_cast<size_t>(slot)];
      counts.assign(base.back() * bins, 0);
      rows.for_each_match(values, above.shift, [&](size_t c, uint32_t key) {
        for (size_t i = 0; i < prefixes[c].size(); ++i) {
          if (prefixes[c][i] == key >> above.shift) {
            ++counts[(base[c] + i) * bins + ((key >> level.shift) & (bins - 1))];
          }
        }
      });
    });
    std::vector<uint64_t> total(base.back() * bins, 0);
    for (const auto& part : parts) {
      for (size_t i = 0; i < part.size(); ++i) total[i] += part[i];
    }
    for (size_t c = 0; c < wanted_.size(); ++c) {
      for (Wanted& w : wanted_[c]) {
        const auto at = std::lower_bound(prefixes[c].begin(), prefixes[c].end(), w.prefix);
        const size_t index = base[c] + static_cast<size_t>(at - prefixes[c].begin());
        w = descend(w, {total.data() + index * bins, bins}, level.bits);
      }
    }
  }

  std::vector<float> interpolate() const {
    std::vector<float> result;
    for (const auto& list : wanted_) {
      for (size_t i = 0; i < p_.size(); ++i) {
        const double low = value_of(list[2 * i].prefix), high = value_of(list[2 * i + 1].prefix);
        result.push_back(static_cast<float>(low + fraction_[i] * (high - low)));
      }
    }
    return result;
  }

  const DataPass& data_;
  int64_t channels_;
  std::span<const double> p_;
  std::vector<std::vector<Wanted>> wanted_;  // [channel][2 * probabilities]
  std::vector<double> fraction_;
};

}  // namespace

std::vector<float> exact_quantiles(const DataPass& data, int64_t channels,
                                   std::span<const double> probabilities) {
  return Selector(data, channels, probabilities).run();
}

}  // namespace repquant::observe
