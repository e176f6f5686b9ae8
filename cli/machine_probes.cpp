#include "cli/machine_probes.h"

#include <chrono>
#include <cstdint>
#include <numeric>
#include <vector>

#if defined(__x86_64__)
#include <emmintrin.h>

#include "repquant/runtime/kernels/amx_unit.h"
#endif

namespace repquant::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

#if defined(__x86_64__)
using runtime::Isa;

constexpr int kIterations = 2000;

// Twelve chains hide the latency of every unit in question; the operands are whatever the registers
// hold, integer products take the same time for all. Names of xmm stand for the whole registers.
#define REPQUANT_CHAINS(one)                                                                \
  one("0") one("1") one("2") one("3") one("4") one("5") one("6") one("7") one("8") one("9") \
      one("10") one("11")
#define REPQUANT_ZMM(n) "vpdpbusd %%zmm12, %%zmm13, %%zmm" n "\n"
#define REPQUANT_YMM(n) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" n "\n"
#define REPQUANT_AVX2(n)                   \
  "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n" \
  "vpmaddwd %%ymm14, %%ymm13, %%ymm14\n"   \
  "vpaddd %%ymm14, %%ymm" n ", %%ymm" n "\n"
#define REPQUANT_LOOP(chains)                                                                  \
  asm volatile("1:\n" chains "sub $1, %0\njnz 1b\nvzeroupper\n"                                \
               : "+r"(left)                                                                    \
               :                                                                               \
               : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", \
                 "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15")

// Operations done; 0: no such unit.
double products(Isa isa) {
  int64_t left = kIterations;
  switch (isa) {
    case Isa::kAmx:
      return runtime::tile_register_operations();
    case Isa::kAvx512Vnni:
      REPQUANT_LOOP(REPQUANT_CHAINS(REPQUANT_ZMM));
      return 12.0 * 128 * kIterations;
    case Isa::kAvxVnni:
      REPQUANT_LOOP(REPQUANT_CHAINS(REPQUANT_YMM));
      return 12.0 * 64 * kIterations;
    case Isa::kAvx2:
      REPQUANT_LOOP(REPQUANT_CHAINS(REPQUANT_AVX2));
      return 12.0 * 64 * kIterations;
    default:
      return 0;
  }
}

int64_t read_all(const std::vector<uint64_t>& memory) {
  __m128i sums[4] = {};
  const auto* at = reinterpret_cast<const __m128i*>(memory.data());
  for (const auto* end = at + memory.size() / 2; at != end; at += 4) {
    for (int i = 0; i < 4; ++i) sums[i] = _mm_xor_si128(sums[i], _mm_loadu_si128(at + i));
  }
  return _mm_cvtsi128_si64(
      _mm_xor_si128(_mm_xor_si128(sums[0], sums[1]), _mm_xor_si128(sums[2], sums[3])));
}
#else
double products(runtime::Isa) { return 0; }

int64_t read_all(const std::vector<uint64_t>& memory) {
  uint64_t sum = 0;
  for (const uint64_t word : memory) sum ^= word;
  return static_cast<int64_t>(sum);
}
#endif

}  // namespace

double register_peak(runtime::Isa isa, ThreadPool& pool, double seconds) {
  std::vector<double> done(static_cast<size_t>(pool.size()));
  const Clock::time_point begin = Clock::now();
  pool.parallel_for(pool.size(), 1, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; ++i) {
      double& mine = done[static_cast<size_t>(i)];
      do mine += products(isa);
      while (mine > 0 && seconds_since(begin) < seconds);
    }
  });
  return std::accumulate(done.begin(), done.end(), 0.0) / seconds_since(begin);
}

double read_bandwidth() {
  static const std::vector<uint64_t> memory(size_t{128} << 17, 1);  // 128 MiB
  const Clock::time_point begin = Clock::now();
  volatile int64_t sink = read_all(memory);
  (void)sink;
  return static_cast<double>(memory.size() * sizeof(uint64_t)) / seconds_since(begin);
}

double clock_hz([[maybe_unused]] double seconds) {
#if defined(__x86_64__)
  constexpr int64_t kLinks = 8 * 1000, kCycles = 3;  // of an imul, on every x86-64 of this century
  const Clock::time_point begin = Clock::now();
  int64_t links = 0;
  do {
    int64_t value = 3, left = kLinks / 8;
    asm volatile(
        "1:\n"
        "imul %0, %0\nimul %0, %0\nimul %0, %0\nimul %0, %0\n"
        "imul %0, %0\nimul %0, %0\nimul %0, %0\nimul %0, %0\n"
        "sub $1, %1\njnz 1b\n"
        : "+r"(value), "+r"(left)
        :
        : "cc");
    links += kLinks;
  } while (seconds_since(begin) < seconds);
  return static_cast<double>(links * kCycles) / seconds_since(begin);
#else
  return 0;
#endif
}

}  // namespace repquant::cli
