#include "repquant/runtime/kernels/isa.h"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>
#include <fmt/ranges.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace repquant::runtime {
namespace {

struct Feature {
  const char* name;
  bool there;
};

#if defined(__x86_64__)
struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

// Register state that the system saves (XCR0); 0 where it saves none.
uint64_t saved_state() {
  if ((cpuid(1, 0).c >> 27 & 1) == 0) return 0;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

std::vector<Feature> needs(Isa isa) {
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);
  const uint64_t saved = saved_state();
  const auto bit = [](unsigned value, int at) { return (value >> at & 1) != 0; };
  std::vector<Feature> all;
  if (isa >= Isa::kAvx2) {
    all = {{"avx2", bit(seven.b, 5)},
           {"fma", bit(one.c, 12)},
           {"f16c", bit(one.c, 29)},
           {"ymm state saved by the system", (saved & 0x6) == 0x6}};
  }
  if (isa == Isa::kAvxVnni) all.push_back({"avx_vnni", bit(seven_one.a, 4)});
  if (isa >= Isa::kAvx512Vnni) {
    all.insert(all.end(), {{"avx512f", bit(seven.b, 16)},
                           {"avx512bw", bit(seven.b, 30)},
                           {"avx512dq", bit(seven.b, 17)},
                           {"avx512vl", bit(seven.b, 31)},
                           {"avx512_vnni", bit(seven.c, 11)},
                           {"zmm state saved by the system", (saved & 0xe6) == 0xe6}});
  }
  return all;
}
#else
std::vector<Feature> needs(Isa isa) {
  if (isa == Isa::kScalar) return {};
  return {{"an x86-64 processor", false}};
}
#endif

std::vector<IsaSupport> probe() {
  std::vector<IsaSupport> all;
  for (const Isa isa : {Isa::kAvx512Vnni, Isa::kAvxVnni, Isa::kAvx2, Isa::kScalar}) {
    std::vector<std::string> missing;
    for (const Feature& feature : needs(isa)) {
      if (!feature.there) missing.emplace_back(feature.name);
    }
    all.push_back({isa, missing.empty(), fmt::format("{}", fmt::join(missing, ", "))});
  }
  return all;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
  }
  return "unknown";
}

const std::vector<IsaSupport>& isa_support() {
  static const std::vector<IsaSupport> all = probe();
  return all;
}

bool isa_available(Isa isa) {
  for (const IsaSupport& support : isa_support()) {
    if (support.isa == isa) return support.available;
  }
  return false;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const IsaSupport& support : isa_support()) {
    if (support.available) names.emplace_back(isa_name(support.isa));
  }
  return names;
}

Isa parse_isa(std::string_view name) {
  if (name.empty() || name == "auto") {
    const char* forced = std::getenv("REPQUANT_FORCE_ISA");
    name = forced == nullptr ? std::string_view() : std::string_view(forced);
  }
  std::string others;
  for (const IsaSupport& support : isa_support()) {
    const bool best = name.empty() || name == "auto";
    if (support.available && (best || name == isa_name(support.isa))) return support.isa;
    if (!support.available)
      others += fmt::format("; {}: this machine lacks {}", isa_name(support.isa), support.missing);
  }
  throw Error(ErrorCode::kUnsupported,
              fmt::format("runtime: instruction set \"{}\": expected auto, {}, got \"{}\"", name,
                          fmt::join(available_isas(), ", "), name),
              fmt::format("available here: {}{}", fmt::join(available_isas(), ", "), others));
}

}  // namespace repquant::runtime
