// AVX512-VNNI: weights of 2 and 4 bits are unpacked in registers for few rows of codes.
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#define REPQUANT_ROW REPQUANT_AVX512VNNI __attribute__((flatten))
#include "repquant/runtime/kernels/gemm_i4/portable.h"
#include "repquant/runtime/kernels/gemm_i8/tiles512.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kFewRows = 24;  // beyond, a panel is unpacked in less time than its tiles lose

// Weights for tiles512; whole panels of 64 columns, so that groups are whole quads.
template <int kBits> struct Packed {
  const uint8_t* at;
  REPQUANT_INLINE512 explicit Packed(const void* panel) : at(static_cast<const uint8_t*>(panel)) {}
  template <int kQuads, int kVectors> REPQUANT_INLINE512 void load(__m512i (&w)[kQuads][kVectors]) {
    constexpr int kEach = 8 / kBits;
    static_assert(kQuads * kVectors % kEach == 0);
    const __m512i mask = _mm512_set1_epi8((1 << kBits) - 1);
    const __m512i raised = _mm512_set1_epi8(1 << (kBits - 1));
#pragma GCC unroll 16
    for (int i = 0; i < kQuads * kVectors; ++i) {
      const __m512i bytes = _mm512_loadu_si512(at + i / kEach * kVector);
      const __m512i code = _mm512_and_si512(_mm512_srli_epi16(bytes, kBits * (i % kEach)), mask);
      w[i / kVectors][i % kVectors] = _mm512_sub_epi8(code, raised);
    }
    at += kQuads * kVectors / kEach * kVector;
  }
};

template <int kBits> REPQUANT_AVX512VNNI void few_rows(const GemmI8Args& args, int64_t panels) {
  const auto* from = static_cast<const uint8_t*>(args.weights);
  const int64_t bytes = quad_depth(args.shape) * tiles512::kPanel * kBits / 8;
  for (int64_t p = 0; p < panels; ++p, from += bytes)
    tiles512::tiles<Packed<kBits>, 4>(args, from, p * tiles512::kPanel);
}

REPQUANT_AVX512VNNI void run_512(const GemmI8Args& args, int bits) noexcept {
  const int64_t whole = args.shape.n / tiles512::kPanel * tiles512::kPanel;
  if (args.rows > kFewRows || bits == 3 || whole == 0)
    return run<gemm_i8_avx512vnni, int8_t>(args, bits);
  int32_t sums[kFewRows];
  GemmI8Args summed = args;
  if (args.zw != nullptr && args.sums == nullptr) {
    tiles512::row_sums(args, sums);
    summed.sums = sums;
  }
  if (bits == 4) few_rows<4>(summed, whole / tiles512::kPanel);
  else few_rows<2>(summed, whole / tiles512::kPanel);
  if (whole == args.shape.n) return;
  GemmI8Args rest = panel_args(summed, args.shape, whole);
  rest.shape.n = args.shape.n - whole;
  rest.weights =
      static_cast<const uint8_t*>(args.weights) + quad_depth(args.shape) * whole * bits / 8;
  run<gemm_i8_avx512vnni, int8_t>(rest, bits);
}

}  // namespace

const GemmI4Kernel gemm_i4_avx512vnni{.name = "gemm_i4/avx512vnni",
                                      .isa = Isa::kAvx512Vnni,
                                      .wide = &gemm_i8_avx512vnni,
                                      .packed_bytes = packed_bytes<gemm_i8_avx512vnni>,
                                      .pack = pack<gemm_i8_avx512vnni>,
                                      .scratch_bytes = scratch_bytes<gemm_i8_avx512vnni>,
                                      .run = run_512};

}  // namespace repquant::runtime
#endif
