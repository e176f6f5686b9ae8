#pragma once
// One step made ready to run: its operands checked and repacked, its kernel row chosen. Made once
// by Program, run by any number of sessions.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "repquant/core/plan.h"
#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

// Where one call reads and writes; the buffers hold [batch, item shape...].
struct StepIo {
  static constexpr int kMaxInputs = 16;
  const std::byte* in[kMaxInputs] = {};
  std::byte* out = nullptr;
};

// What lies before the scratch memory of a worker: kept from one piece of a step to the next of the
// same worker, `held` is -1 at the first. Names what the scratch holds, to be prepared once.
struct alignas(64) ScratchHead {
  uint64_t region = 0;
  int64_t held = -1;
};
inline ScratchHead& head_of(std::byte* scratch) {
  return *reinterpret_cast<ScratchHead*>(scratch - sizeof(ScratchHead));
}

class StepKernel {
 public:
  virtual ~StepKernel() = default;
  virtual std::string_view name() const = 0;  // of the kernel row
  // Work is split in units that may run in any order and on any thread: `units()` of them an item,
  // pieces are multiples of `grain()`.
  virtual int64_t units() const = 0;
  virtual int64_t grain() const { return 1; }
  // Rough cost with AVX512-VNNI, decides whether threads are worth it.
  virtual double ns_per_unit() const = 0;
  virtual size_t scratch_bytes() const { return 0; }  // of one worker
  virtual size_t packed_bytes() const { return 0; }   // repacked weights held
  virtual std::vector<int> in_place() const {
    return {};
  }  // inputs whose storage the output may take
  // Units [begin, end) of the whole batch. `scratch` is 64-byte aligned, a ScratchHead before it.
  virtual void run(const StepIo& io, int64_t begin, int64_t end,
                   std::byte* scratch) const noexcept = 0;
};

// Throws kUnsupported for an op without a row, naming what is supported; kCorruptFile for operands
// that do not fit. Keeps references into `plan`.
std::unique_ptr<StepKernel> make_step_kernel(const Plan& plan, const Step& step, Isa isa);

}  // namespace repquant::runtime
