#pragma once
// Instruction set levels of the kernel tables. Every family has a `scalar` row: portable code, the
// meaning of the family; faster rows must equal it bit for bit.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "repquant/core/error.h"

namespace repquant::runtime {

// Ascending: a level is tried before those below it.
enum class Isa : uint8_t { kScalar, kAvx2, kAvxVnni, kAvx512Vnni };

struct IsaSupport {
  Isa isa = Isa::kScalar;
  bool available = false;
  std::string missing;  // what this machine lacks; empty when available
};

std::string_view isa_name(Isa isa);
const std::vector<IsaSupport>& isa_support();  // every level, best first
bool isa_available(Isa isa);
std::vector<std::string> available_isas();  // names, best first
// "auto" or empty: the environment variable REPQUANT_FORCE_ISA if set, else the best available.
// Throws kUnsupported for a name that is unknown or not available here, listing what is and why
// others are not.
Isa parse_isa(std::string_view name);

// The first row (tables list the best first) that needs no more than `isa` and runs here: a machine
// may have AVX512-VNNI without AVX-VNNI.
template <class Row> const Row& select_row(std::span<const Row* const> rows, Isa isa) {
  for (const Row* row : rows) {
    if (row->isa <= isa && isa_available(row->isa)) return *row;
  }
  throw Error(ErrorCode::kInternal, "runtime: kernel table: expected a scalar row, got none");
}

}  // namespace repquant::runtime
