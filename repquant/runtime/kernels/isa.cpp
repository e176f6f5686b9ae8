#include "repquant/runtime/kernels/isa.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "repquant/runtime/kernels/amx_unit.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace repquant::runtime {
namespace {

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
#endif

// Names of CpuFeatures::there.
std::vector<std::string_view> needs(Isa isa) {
  std::vector<std::string_view> all;
  if (isa >= Isa::kAvx2) all = {"avx2", "fma", "f16c", "ymm state saved by the system"};
  if (isa == Isa::kAvxVnni) all.emplace_back("avx_vnni");
  if (isa >= Isa::kAvx512Vnni) {
    all.insert(all.end(), {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
                           "zmm state saved by the system"});
  }
  if (isa >= Isa::kAmx)
    all.insert(all.end(), {"amx_tile", "amx_int8", "tile state saved by the system"});
  return all;
}

// Of a processor that has them.
std::string why_no_tiles(const CpuFeatures& cpu) {
  const int error = cpu.ask_for_tiles ? cpu.ask_for_tiles() : ENOSYS;
  if (error != 0) {
    const char* name = ::strerrorname_np(error);
    return fmt::format("permission for tiles (refused: {})",
                       name == nullptr ? std::to_string(error) : name);
  }
  if (cpu.tiles_work && !cpu.tiles_work()) return "tiles that keep their sums (self-test failed)";
  return "";
}

}  // namespace

CpuFeatures this_cpu() {
  CpuFeatures cpu;
#if defined(__x86_64__)
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);
  const uint64_t saved = saved_state();
  const auto add = [&cpu](const char* name, bool there) {
    if (there) cpu.there.emplace(name);
  };
  const auto bit = [](unsigned value, int at) { return (value >> at & 1) != 0; };
  add("avx2", bit(seven.b, 5));
  add("fma", bit(one.c, 12));
  add("f16c", bit(one.c, 29));
  add("ymm state saved by the system", (saved & 0x6) == 0x6);
  add("avx_vnni", bit(seven_one.a, 4));
  add("avx512f", bit(seven.b, 16));
  add("avx512bw", bit(seven.b, 30));
  add("avx512dq", bit(seven.b, 17));
  add("avx512vl", bit(seven.b, 31));
  add("avx512_vnni", bit(seven.c, 11));
  add("zmm state saved by the system", (saved & 0xe6) == 0xe6);
  add("amx_tile", bit(seven.d, 24));
  add("amx_int8", bit(seven.d, 25));
  add("tile state saved by the system", (saved & 0x60000) == 0x60000);
  cpu.ask_for_tiles = request_tile_permission;
  cpu.tiles_work = tiles_keep_their_sums;
#endif
  return cpu;
}

std::vector<IsaSupport> probe_isas(const CpuFeatures& cpu) {
  std::vector<IsaSupport> all;
  for (const Isa isa : {Isa::kAmx, Isa::kAvx512Vnni, Isa::kAvxVnni, Isa::kAvx2, Isa::kScalar}) {
    std::vector<std::string_view> lacking;
    for (const std::string_view name : needs(isa)) {
      if (!cpu.there.contains(name)) lacking.push_back(name);
    }
    std::string missing = fmt::format("{}", fmt::join(lacking, ", "));
    if (missing.empty() && isa == Isa::kAmx) missing = why_no_tiles(cpu);
    all.push_back({isa, missing.empty(), missing});
  }
  return all;
}

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
    case Isa::kAmx:
      return "amx";
  }
  return "unknown";
}

const std::vector<IsaSupport>& isa_support() {
  static const std::vector<IsaSupport> all = probe_isas(this_cpu());
  return all;
}

bool isa_available(Isa isa, const std::vector<IsaSupport>& support) {
  for (const IsaSupport& level : support) {
    if (level.isa == isa) return level.available;
  }
  return false;
}

std::vector<std::string> available_isas(const std::vector<IsaSupport>& support) {
  std::vector<std::string> names;
  for (const IsaSupport& level : support) {
    if (level.available) names.emplace_back(isa_name(level.isa));
  }
  return names;
}

Isa parse_isa(std::string_view name, const std::vector<IsaSupport>& support) {
  if (name.empty() || name == "auto") {
    const char* forced = std::getenv("REPQUANT_FORCE_ISA");
    name = forced == nullptr ? std::string_view() : std::string_view(forced);
  }
  std::string others;
  for (const IsaSupport& level : support) {
    const bool best = name.empty() || name == "auto";
    if (level.available && (best || name == isa_name(level.isa))) return level.isa;
    if (!level.available)
      others += fmt::format("; {}: this machine lacks {}", isa_name(level.isa), level.missing);
  }
  const std::vector<std::string> names = available_isas(support);
  throw Error(ErrorCode::kUnsupported,
              fmt::format("runtime: instruction set \"{}\": expected auto, {}, got \"{}\"", name,
                          fmt::join(names, ", "), name),
              fmt::format("available here: {}{}", fmt::join(names, ", "), others));
}

}  // namespace repquant::runtime
