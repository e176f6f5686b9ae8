#pragma once
// Equal answers on every instruction set of this machine, for any number of threads and any batch.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "repquant/core/plan.h"

namespace repquant {

struct BitMatrixOptions {
  std::vector<std::string> isas;  // empty: all this machine has
  std::vector<int> threads = {1, 2, 3};
  std::vector<int64_t> batches = {1, 3, 8};
  std::function<void()> between = {};  // called before each combination; may throw
};

struct BitDifference {
  std::string isa;
  int threads = 0;
  int64_t batch = 0, item = 0, element = 0;  // element of all outputs of the item, in order
};

struct BitMatrix {
  std::vector<std::string> isas;
  int64_t items = 0, combinations = 0;      // of instruction set, threads and batch
  std::string digest;                       // sha256 of the answers to all items, item by item
  std::optional<BitDifference> difference;  // the first
};

// Answers of the scalar rows to each item alone are the reference. Every combination answers all
// items, in batches. `inputs` are [N, item shape...] in the order of the plan's inputs; items are
// taken in turn until there are as many as the largest batch. Every step is split over the threads,
// however small.
BitMatrix compare_bits(const Plan& plan, const std::vector<Tensor>& inputs,
                       const BitMatrixOptions& options = {});

}  // namespace repquant
