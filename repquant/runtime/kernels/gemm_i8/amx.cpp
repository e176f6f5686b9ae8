// AMX: tiles 0 to 3 hold 32 x 32 sums, 4 and 5 rows of codes, 6 and 7 weights; or 16 x 64 sums, 4
// rows of codes, 5 to 7 weights in turn. The epilogue reads the sums from a buffer in the first
// cache.
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include <cstdlib>

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "repquant/runtime/kernels/amx_unit.h"
#include "repquant/runtime/kernels/gemm_i8/amx.h"

namespace repquant::runtime {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
constexpr TileConfig kConfig;

// As assembly: the compiler's own way names the first bytes of the table alone, and may drop the
// others.
class TileUnit {
 public:
  explicit TileUnit(bool guarded) : guarded_(guarded) {}
  bool guarded() const { return guarded_; }
  static uint64_t cycles() { return __builtin_ia32_rdtsc(); }
  static void configure() { asm volatile("ldtilecfg %0" : : "m"(kConfig)); }
  static void release() { asm volatile("tilerelease"); }
  static void zero() {
    asm volatile("tilezero %tmm0\n tilezero %tmm1\n tilezero %tmm2\n tilezero %tmm3");
  }
  static void multiply(const uint8_t* a0, const uint8_t* a1, int64_t stride, const int8_t* w0,
                       const int8_t* w1) {
    asm volatile(
        "tileloadd (%0,%4,1), %%tmm4\n"
        "tileloadd (%2,%5,1), %%tmm6\n"
        "tileloadd (%3,%5,1), %%tmm7\n"
        "tdpbusd %%tmm6, %%tmm4, %%tmm0\n"
        "tileloadd (%1,%4,1), %%tmm5\n"
        "tdpbusd %%tmm7, %%tmm4, %%tmm1\n"
        "tdpbusd %%tmm6, %%tmm5, %%tmm2\n"
        "tdpbusd %%tmm7, %%tmm5, %%tmm3"
        :
        : "r"(a0), "r"(a1), "r"(w0), "r"(w1), "r"(stride), "r"(int64_t{64})
        : "memory");
  }
  // One tile of codes, four of weights; sums of 16 columns in each of tiles 0 to 3.
  static void multiply_flat(const uint8_t* a, int64_t stride, const int8_t* const (&w)[4]) {
    asm volatile(
        "tileloadd (%0,%5,1), %%tmm4\n"
        "tileloadd (%1,%6,1), %%tmm5\n"
        "tileloadd (%2,%6,1), %%tmm6\n"
        "tdpbusd %%tmm5, %%tmm4, %%tmm0\n"
        "tileloadd (%3,%6,1), %%tmm7\n"
        "tdpbusd %%tmm6, %%tmm4, %%tmm1\n"
        "tileloadd (%4,%6,1), %%tmm5\n"
        "tdpbusd %%tmm7, %%tmm4, %%tmm2\n"
        "tdpbusd %%tmm5, %%tmm4, %%tmm3"
        :
        : "r"(a), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "r"(stride), "r"(int64_t{64})
        : "memory");
  }
  static void store_flat(int32_t* to) {
    asm volatile(
        "tilestored %%tmm0, (%0,%4,1)\n"
        "tilestored %%tmm1, (%1,%4,1)\n"
        "tilestored %%tmm2, (%2,%4,1)\n"
        "tilestored %%tmm3, (%3,%4,1)"
        :
        : "r"(to), "r"(to + 16), "r"(to + 32), "r"(to + 48), "r"(int64_t{256})
        : "memory");
  }
  static void store(int32_t* to) {
    asm volatile(
        "tilestored %%tmm0, (%0,%4,1)\n"
        "tilestored %%tmm1, (%1,%4,1)\n"
        "tilestored %%tmm2, (%2,%4,1)\n"
        "tilestored %%tmm3, (%3,%4,1)"
        :
        : "r"(to), "r"(to + 16), "r"(to + 16 * 32), "r"(to + 16 * 32 + 16), "r"(int64_t{128})
        : "memory");
  }

 private:
  bool guarded_;
};

bool guard_asked_for() {
  const char* asked = std::getenv("REPQUANT_AMX_GUARD");
  return asked != nullptr && std::string_view(asked) == "1";
}

void run(const GemmI8Args& args) noexcept {
  static const bool guarded = guard_asked_for();
  // Once a thread: the permission is documented to be of the process, and was seen to be of
  // threads.
  static thread_local const int refused = request_tile_permission();
  static_cast<void>(refused);
  TileUnit unit(guarded);
  amx::run(unit, gemm_i8_amx, args);
}

}  // namespace

const GemmI8Kernel gemm_i8_amx{.name = "gemm_i8/amx",
                               .isa = Isa::kAmx,
                               .tile_rows = amx::kBlock,
                               .panel = amx::kBlock,
                               .weight_bytes = 1,
                               .packed_bytes = amx::packed_bytes,
                               .pack = amx::pack,
                               .scratch_bytes = amx::scratch_bytes,
                               .sums = tiles512::row_sums,
                               .run = run};

int request_tile_permission() {
#if defined(SYS_arch_prctl)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0 ? 0 : errno;
#else
  return ENOSYS;
#endif
}

bool tiles_keep_their_sums() {
  alignas(64) uint8_t a[32 * 64];
  alignas(64) int8_t w[2 * 16 * 64];
  alignas(64) int32_t sums[32 * 32];
  uint32_t state = 1;
  for (int round = 0; round < 64; ++round) {
    const auto random = [&state] { return state = state * 1664525u + 1013904223u, state >> 24; };
    for (uint8_t& v : a) v = static_cast<uint8_t>(random());
    for (int8_t& v : w) v = static_cast<int8_t>(random());
    TileUnit::configure();
    TileUnit::zero();
    ::sched_yield();
    TileUnit::multiply(a, a + 16 * 64, 64, w, w + 16 * 64);
    ::sched_yield();
    TileUnit::store(sums);
    TileUnit::release();
    for (int r = 0; r < 32; ++r) {
      for (int n = 0; n < 32; ++n) {
        int32_t sum = 0;
        for (int k = 0; k < 64; ++k)
          sum += a[r * 64 + k] * w[n / 16 * 1024 + k / 4 * 64 + n % 16 * 4 + k % 4];
        if (sums[r * 32 + n] != sum) return false;
      }
    }
  }
  return true;
}

double tile_register_operations() {
  constexpr int kTimes = 1000;
  TileUnit::configure();
  TileUnit::zero();
  for (int i = 0; i < kTimes; ++i) {
    asm volatile(
        "tdpbusd %tmm6, %tmm4, %tmm0\n tdpbusd %tmm7, %tmm4, %tmm1\n"
        "tdpbusd %tmm6, %tmm5, %tmm2\n tdpbusd %tmm7, %tmm5, %tmm3");
  }
  TileUnit::release();
  return 4.0 * 2 * 16 * 16 * 64 * kTimes;
}

}  // namespace repquant::runtime
#endif
