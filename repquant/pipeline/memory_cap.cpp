#include "repquant/pipeline/memory_cap.h"

#include <sys/resource.h>

#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/machine.h"

namespace repquant {
namespace {

constexpr double kMiB = 1048576.0;
constexpr uint64_t kLibraryPages = uint64_t{96} << 20;  // of libtorch and its companions, resident
constexpr double kBase = 176 * kMiB;                    // those, and what they allocate

double bytes_of(const SymbolicShape& shape) {
  double bytes = sizeof(float);
  for (const Dim& dim : shape) bytes *= dim.known() ? static_cast<double>(dim.size) : 1.0;
  return bytes;
}

std::string size_text(double bytes) {
  return bytes < 10240 * kMiB ? fmt::format("{:.0f} MiB", std::ceil(bytes / kMiB))
                              : fmt::format("{:.1f} GiB", bytes / kMiB / 1024);
}

}  // namespace

double needed_memory(const Graph& graph, int64_t samples, int threads, int64_t trained) {
  constexpr double kWeightCopies = 5;  // as loaded, twice; live, reference, being rewritten
  constexpr double kChunk = 8;         // samples computed at a time
  constexpr double kLive = 3;          // values of a block alive at once
  constexpr double kGraph = 14;        // values that backpropagation keeps of a block
  constexpr double kBins = 2048;       // of a channel's histogram
  double weights = 0, largest = 0, channels = 0;
  for (size_t id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(static_cast<ValueId>(id));
    if (value.constant) {
      weights += static_cast<double>(value.constant->bytes());
    } else if (value.shape && !value.shape->empty()) {
      largest = std::max(largest, bytes_of(*value.shape));
      const Dim& last = value.shape->back();
      if (last.known()) channels = std::max(channels, static_cast<double>(last.size));
    }
  }
  const auto n = static_cast<double>(samples);
  const double histograms = channels * kBins * (4 * std::ceil(n / kChunk) + 8);
  return kBase + kWeightCopies * weights + 2 * n * largest + kLive * kChunk * threads * largest +
         kGraph * static_cast<double>(trained) * largest + histograms;
}

void check_memory(double needed, uint64_t cap) {
  const uint64_t installed = memory_bytes();
  if (cap > 0 && needed > static_cast<double>(cap)) {
    throw Error(ErrorCode::kResourceExhausted,
                fmt::format("quantize: memory: expected a cap of at least {}, got {}",
                            size_text(needed), size_text(static_cast<double>(cap))),
                fmt::format("pass --memory {:.0f}MiB, or fewer --samples or --threads",
                            std::ceil(needed / kMiB)));
  }
  if (installed == 0 || needed <= static_cast<double>(installed)) return;
  throw Error(ErrorCode::kResourceExhausted,
              fmt::format("quantize: memory: expected {}, the machine has {}", size_text(needed),
                          size_text(static_cast<double>(installed))),
              "are the shapes of the model what they should be?");
}

MemoryLimit::MemoryLimit(uint64_t cap) {
#ifdef RLIMIT_DATA
  struct rlimit limit {};
  if (cap == 0 || ::getrlimit(RLIMIT_DATA, &limit) != 0) return;
  before_ = limit.rlim_cur;
  const uint64_t pages = std::max(file_memory_bytes(), kLibraryPages);
  const uint64_t allowed = cap > pages ? cap - pages : 0, held = private_memory_bytes();
  // The limit counts what is mapped, held or not: stacks of threads for example.
  const uint64_t mapped = mapped_memory_bytes();
  const uint64_t wanted = mapped + (allowed > held ? allowed - held : 0);
  if (limit.rlim_cur != RLIM_INFINITY && wanted >= limit.rlim_cur) return;
#ifdef M_MMAP_THRESHOLD
  // Freed tensors go back to the system instead of leaving holes: a third less memory on DeiT-Tiny.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
  limit.rlim_cur = wanted;
  set_ = ::setrlimit(RLIMIT_DATA, &limit) == 0;
#else
  (void)cap;
#endif
}

MemoryLimit::~MemoryLimit() {
#ifdef RLIMIT_DATA
  struct rlimit limit {};
  if (!set_ || ::getrlimit(RLIMIT_DATA, &limit) != 0) return;
  limit.rlim_cur = before_;
  ::setrlimit(RLIMIT_DATA, &limit);
#endif
}

}  // namespace repquant
