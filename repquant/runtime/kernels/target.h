#pragma once
// Function attributes of the instruction set rows. Attributes, not compiler flags: with flags,
// inline functions of shared headers would be compiled for the wide set and might be linked into
// portable code.
#if defined(__x86_64__)
#define REPQUANT_AVX2 __attribute__((target("avx2,fma,f16c")))
#define REPQUANT_AVXVNNI __attribute__((target("avx2,fma,f16c,avxvnni")))
#define REPQUANT_AVX512VNNI \
  __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define REPQUANT_INLINE512 REPQUANT_AVX512VNNI __attribute__((always_inline)) inline
#endif

// g++ 12 takes the undefined vectors inside its own AVX-512 intrinsics for mistakes (PR 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
