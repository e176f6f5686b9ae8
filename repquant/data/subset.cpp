#include "repquant/data/subset.h"

#include <algorithm>
#include <bit>
#include <unordered_map>
#include <unordered_set>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/files.h"
#include "repquant/core/random.h"

namespace repquant {
Random::Random(uint64_t seed) {
  for (uint64_t& word : state_) word = splitmix64(seed);
}

uint64_t Random::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

uint64_t Random::below(uint64_t bound) {
  REPQUANT_CHECK(bound >= 1);
  const uint64_t excess = (0 - bound) % bound;  // 2^64 mod bound
  while (true) {
    const uint64_t value = next();
    if (value >= excess) return value % bound;
  }
}

std::vector<int64_t> draw_subset(int64_t n, int64_t k, uint64_t seed) {
  if (k < 0 || k > n) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("data: subset: expected 0 to {} samples, got {}", n, k),
                "lower --samples");
  }
  Random random(seed);
  std::unordered_map<int64_t, int64_t> moved;  // place -> number, where it is not the place itself
  const auto at = [&](int64_t place) {
    const auto found = moved.find(place);
    return found == moved.end() ? place : found->second;
  };
  std::vector<int64_t> subset;
  for (int64_t i = 0; i < k; ++i) {
    const int64_t j = i + static_cast<int64_t>(random.below(static_cast<uint64_t>(n - i)));
    subset.push_back(at(j));
    moved[j] = at(i);
  }
  std::sort(subset.begin(), subset.end());
  return subset;
}

std::vector<int64_t> overlap(const Dataset& a, std::span<const int64_t> indices, const Dataset& b) {
  std::unordered_set<std::string> known;
  for (int64_t i = 0; i < b.size(); ++i) known.insert(b.digest(i));
  std::vector<int64_t> common;
  for (const int64_t index : indices) {
    if (known.contains(a.digest(index))) common.push_back(index);
  }
  std::sort(common.begin(), common.end());
  return common;
}

std::string subset_digest(const Dataset& dataset, std::span<const int64_t> indices) {
  Sha256 sum;
  for (const int64_t index : indices) sum.update(dataset.digest(index));
  return sum.hex();
}

}  // namespace repquant
