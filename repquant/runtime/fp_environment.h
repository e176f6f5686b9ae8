#pragma once
// The float state the laws assume: round to nearest even, denormals kept. Set at the entry of a run
// and of every worker's piece, restored at exit.
#include <cfenv>
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace repquant::runtime {

class FpEnvironment {
 public:
#if defined(__x86_64__)
  FpEnvironment() : saved_(_mm_getcsr()) {
    constexpr uint32_t kFlushAndDaz = 0x8040, kRounding = 0x6000;
    const uint32_t wanted = saved_ & ~(kFlushAndDaz | kRounding);
    if (wanted != saved_) _mm_setcsr(wanted);
  }
  ~FpEnvironment() {
    constexpr uint32_t kFlags = 0x3f;  // raised exception flags are left as they are
    const uint32_t now = _mm_getcsr();
    const uint32_t back = (saved_ & ~kFlags) | (now & kFlags);
    if (back != now) _mm_setcsr(back);
  }

 private:
  uint32_t saved_;
#elif defined(__aarch64__)
  FpEnvironment() : saved_(control()) {
    constexpr uint64_t kFlushAndRounding = (1u << 24) | (1u << 19) | (3u << 22);
    set_control(saved_ & ~kFlushAndRounding);
  }
  ~FpEnvironment() { set_control(saved_); }

 private:
  static uint64_t control() {
    uint64_t value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void set_control(uint64_t value) { asm volatile("msr fpcr, %0" : : "r"(value)); }
  uint64_t saved_;
#else
  FpEnvironment() : saved_(std::fegetround()) { std::fesetround(FE_TONEAREST); }
  ~FpEnvironment() { std::fesetround(saved_); }

 private:
  int saved_;
#endif

 public:
  FpEnvironment(const FpEnvironment&) = delete;
  FpEnvironment& operator=(const FpEnvironment&) = delete;
};

}  // namespace repquant::runtime
