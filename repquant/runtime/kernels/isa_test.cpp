// Which row runs where, and what is said of those that do not.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>

#include "repquant/runtime/kernels/attention_i8/attention_i8.h"
#include "repquant/runtime/kernels/depthwise_i8/depthwise_i8.h"
#include "repquant/runtime/kernels/gemm_i4/gemm_i4.h"

namespace repquant::runtime {
namespace {

TEST(Isa, NamesWhatIsMissing) {
  EXPECT_EQ(available_isas().back(), "scalar");
  for (const IsaSupport& support : isa_support()) {
    EXPECT_EQ(support.available, support.missing.empty()) << isa_name(support.isa);
    if (support.available) {
      EXPECT_EQ(parse_isa(isa_name(support.isa)), support.isa);
      continue;
    }
    try {
      (void)parse_isa(isa_name(support.isa));
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(error.hint().find(support.missing), std::string::npos) << error.hint();
    }
  }
}

#if defined(__x86_64__)

// A processor that has everything.
CpuFeatures everything() {
  CpuFeatures cpu;
  for (const char* name :
       {"avx2", "fma", "f16c", "ymm state saved by the system", "avx_vnni", "avx512f", "avx512bw",
        "avx512dq", "avx512vl", "avx512_vnni", "zmm state saved by the system", "amx_tile",
        "amx_int8", "tile state saved by the system"})
    cpu.there.emplace(name);
  cpu.ask_for_tiles = [] { return 0; };
  cpu.tiles_work = [] { return true; };
  return cpu;
}

std::vector<IsaSupport> without(std::initializer_list<const char*> hidden) {
  CpuFeatures cpu = everything();
  for (const char* name : hidden) EXPECT_EQ(cpu.there.erase(name), 1u) << name;
  return probe_isas(cpu);
}

std::string missing(const std::vector<IsaSupport>& support, Isa isa) {
  for (const IsaSupport& level : support)
    if (level.isa == isa) return level.missing;
  return "no such level";
}

// The row of gemm_i8 on such a machine.
std::string_view best_gemm(const std::vector<IsaSupport>& support) {
  return select_row(gemm_i8_kernels(), parse_isa("auto", support), support).name;
}

class Isas : public ::testing::Test {
 protected:
  void SetUp() override { ::unsetenv("REPQUANT_FORCE_ISA"); }
};

TEST_F(Isas, HiddenFeaturesChooseTheRowAndAreNamed) {
  EXPECT_EQ(best_gemm(without({})), "gemm_i8/amx");
  struct Hidden {
    std::initializer_list<const char*> features;
    const char* row;
    Isa lost;
    const char* reason;
  };
  for (const Hidden& h : std::initializer_list<Hidden>{
           {{"amx_int8"}, "gemm_i8/avx512vnni", Isa::kAmx, "amx_int8"},
           {{"tile state saved by the system"},
            "gemm_i8/avx512vnni",
            Isa::kAmx,
            "tile state saved by the system"},
           {{"avx512_vnni"}, "gemm_i8/avxvnni", Isa::kAvx512Vnni, "avx512_vnni"},
           {{"zmm state saved by the system"},
            "gemm_i8/avxvnni",
            Isa::kAmx,
            "zmm state saved by the system"},
           {{"avx512vl", "avx_vnni"}, "gemm_i8/avx2", Isa::kAvxVnni, "avx_vnni"},
           {{"avx512vl", "avx_vnni"}, "gemm_i8/avx2", Isa::kAvx512Vnni, "avx512vl"},
           {{"avx_vnni", "amx_tile"}, "gemm_i8/avx512vnni", Isa::kAvxVnni, "avx_vnni"},
           {{"fma"}, "gemm_i8/scalar", Isa::kAvx2, "fma"},
           {{"ymm state saved by the system"},
            "gemm_i8/scalar",
            Isa::kAvxVnni,
            "ymm state saved by the system"}}) {
    const auto support = without(h.features);
    EXPECT_EQ(best_gemm(support), h.row);
    EXPECT_FALSE(isa_available(h.lost, support));
    EXPECT_EQ(missing(support, h.lost), h.reason);
    try {
      (void)parse_isa(isa_name(h.lost), support);
      FAIL() << isa_name(h.lost);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_NE(
          error.hint().find(std::string(isa_name(h.lost)) + ": this machine lacks " + h.reason),
          std::string::npos)
          << error.hint();
    }
  }
}

TEST_F(Isas, EveryForcedLevelChoosesItsRows) {
  const auto support = without({});
  for (const char* name : {"amx", "avx512vnni", "avxvnni", "avx2", "scalar"}) {
    const Isa isa = parse_isa(name, support);
    EXPECT_EQ(select_row(gemm_i8_kernels(), isa, support).name, std::string("gemm_i8/") + name);
    EXPECT_EQ(select_row(gemm_i4_kernels(), isa, support).name, std::string("gemm_i4/") + name);
    EXPECT_LE(select_row(attention_i8_kernels(), isa, support).isa, isa);
    EXPECT_LE(select_row(depthwise_i8_kernels(), isa, support).isa, isa);
    ::setenv("REPQUANT_FORCE_ISA", name, 1);
    EXPECT_EQ(parse_isa("auto", support), isa);
    ::unsetenv("REPQUANT_FORCE_ISA");
  }
  EXPECT_THROW((void)parse_isa("avx1024", support), Error);
}

TEST_F(Isas, RefusedTilesAreOffAndTheReasonIsKept) {
  CpuFeatures cpu = everything();
  bool tested = false;
  cpu.tiles_work = [&] { return tested = true; };
  for (const auto& [error, name] : {std::pair{EPERM, "EPERM"}, std::pair{ENOSPC, "ENOSPC"},
                                    std::pair{EOPNOTSUPP, "EOPNOTSUPP"}}) {
    cpu.ask_for_tiles = [error = error] { return error; };
    const auto support = probe_isas(cpu);
    EXPECT_EQ(missing(support, Isa::kAmx),
              std::string("permission for tiles (refused: ") + name + ")");
    EXPECT_EQ(best_gemm(support), "gemm_i8/avx512vnni");
    EXPECT_FALSE(tested);  // without the permission its instructions would end the program
  }
}

TEST_F(Isas, TilesThatLoseTheirSumsAreOff) {
  CpuFeatures cpu = everything();
  cpu.tiles_work = [] { return false; };
  const auto support = probe_isas(cpu);
  EXPECT_EQ(missing(support, Isa::kAmx), "tiles that keep their sums (self-test failed)");
  EXPECT_EQ(best_gemm(support), "gemm_i8/avx512vnni");
}

TEST_F(Isas, TilesAreNotAskedForWhereTheProcessorHasNone) {
  CpuFeatures cpu = everything();
  cpu.there.erase("amx_tile");
  cpu.ask_for_tiles = []() -> int { throw std::logic_error("asked"); };
  EXPECT_EQ(missing(probe_isas(cpu), Isa::kAmx), "amx_tile");
}

#endif

}  // namespace
}  // namespace repquant::runtime
