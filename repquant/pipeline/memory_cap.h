#pragma once
// What a run needs of memory at least, refused before it starts when there is less, and the limit
// that holds while it runs.
#include <cstdint>

#include "repquant/graph/graph.h"

namespace repquant {

// Bytes that quantizing `graph` over `samples` calibration items with `threads` takes when nothing
// is kept that can be computed again: libraries, copies of the weights, the inputs and outputs of
// one block for every sample, a few chunks of its largest value, histograms of channels, and what
// backpropagation through a block keeps of `trained` samples. An upper estimate from shapes, with
// one item where the batch is symbolic. Torch-free.
double needed_memory(const Graph& graph, int64_t samples, int threads, int64_t trained = 0);

// Throws kResourceExhausted, naming the smallest cap, when `needed` is more than `cap` (0: no cap)
// or than the machine has.
void check_memory(double needed, uint64_t cap);

// While it lives the process may not hold more than `cap` bytes resident (0: no limit): its private
// memory is limited (RLIMIT_DATA) to what is left beside the pages of libraries. Allocation fails
// beyond. The allocator keeps less in reserve from then on. Does nothing where the system has no
// such limit.
class MemoryLimit {
 public:
  explicit MemoryLimit(uint64_t cap);
  ~MemoryLimit();
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

 private:
  uint64_t before_ = 0;
  bool set_ = false;
};

}  // namespace repquant
