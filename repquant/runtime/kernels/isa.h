#pragma once
// Instruction set levels of the kernel tables. Every family has a `scalar` row: portable code, the
// meaning of the family; faster rows must equal it bit for bit.
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "repquant/core/error.h"

namespace repquant::runtime {

// Ascending: a level is tried before those below it.
enum class Isa : uint8_t { kScalar, kAvx2, kAvxVnni, kAvx512Vnni, kAmx };

struct IsaSupport {
  Isa isa = Isa::kScalar;
  bool available = false;
  std::string missing;  // why it is not available
};

// What a machine has. The functions are called only where the processor has tiles.
struct CpuFeatures {
  std::set<std::string, std::less<>> there;  // "avx2", "zmm state saved by the system", ...
  std::function<int()> ask_for_tiles;        // 0, or the error number of a refusal
  std::function<bool()> tiles_work;          // a self-test
};
CpuFeatures this_cpu();
std::vector<IsaSupport> probe_isas(const CpuFeatures& cpu);  // every level, best first

std::string_view isa_name(Isa isa);
const std::vector<IsaSupport>& isa_support();  // of this machine: probed once
bool isa_available(Isa isa, const std::vector<IsaSupport>& support = isa_support());
// Names, best first.
std::vector<std::string> available_isas(const std::vector<IsaSupport>& support = isa_support());
// "auto" or empty: the environment variable REPQUANT_FORCE_ISA if set, else the best available.
// Throws kUnsupported for a name that is unknown or not available here, listing what is and why
// others are not.
Isa parse_isa(std::string_view name, const std::vector<IsaSupport>& support = isa_support());

// The first row (tables list the best first) that needs no more than `isa` and runs here: a machine
// may have AVX512-VNNI without AVX-VNNI.
template <class Row>
const Row& select_row(std::span<const Row* const> rows, Isa isa,
                      const std::vector<IsaSupport>& support = isa_support()) {
  for (const Row* row : rows) {
    if (row->isa <= isa && isa_available(row->isa, support)) return *row;
  }
  throw Error(ErrorCode::kInternal, "runtime: kernel table: expected a scalar row, got none");
}

}  // namespace repquant::runtime
