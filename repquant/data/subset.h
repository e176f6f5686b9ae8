#pragma once
// Which items calibrate: drawn by seed, the same on every machine, and kept apart from those that
// score.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "repquant/data/dataset.h"

namespace repquant {

// Generator of this project's random draws that must not depend on a library: xoshiro256**
// (Blackman and Vigna, 2018), its state four outputs of splitmix64 from the seed.
class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t next();
  uint64_t below(uint64_t bound);  // uniform in [0, bound), exact (rejection); bound >= 1

 private:
  uint64_t state_[4];
};

// k different numbers of [0, n), ascending: the first k places of a Fisher-Yates shuffle of 0 ..
// n-1 that swaps place i with place i + Random(seed).below(n - i). Throws kInvalidArgument unless
// 0 <= k <= n.
std::vector<int64_t> draw_subset(int64_t n, int64_t k, uint64_t seed);

// Those of `indices` (into a) whose content is also in b, ascending. Compares digests: empty when
// the two are of different kinds.
std::vector<int64_t> overlap(const Dataset& a, std::span<const int64_t> indices, const Dataset& b);

// SHA-256 over the digests of `indices` in order: what a calibration fingerprint holds.
std::string subset_digest(const Dataset& dataset, std::span<const int64_t> indices);

}  // namespace repquant
