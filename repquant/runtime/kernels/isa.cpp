#include "repquant/runtime/kernels/isa.h"

#include <cstdlib>

#include <fmt/format.h>

namespace repquant::runtime {

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return "scalar";
  }
  return "unknown";
}

std::vector<std::string> available_isas() { return {std::string(isa_name(Isa::kScalar))}; }

Isa parse_isa(std::string_view name) {
  if (name.empty() || name == "auto") {
    const char* forced = std::getenv("REPQUANT_FORCE_ISA");
    if (forced == nullptr || *forced == '\0' || std::string_view(forced) == "auto")
      return Isa::kScalar;
    name = forced;
  }
  if (name == isa_name(Isa::kScalar)) return Isa::kScalar;
  throw Error(ErrorCode::kUnsupported,
              fmt::format("runtime: instruction set \"{}\": expected auto or scalar, got \"{}\"",
                          name, name),
              "available here: scalar");
}

}  // namespace repquant::runtime
