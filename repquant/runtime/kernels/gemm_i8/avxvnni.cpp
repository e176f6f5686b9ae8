// AVX-VNNI: tiles of 6 rows by 16 columns, 12 accumulators of 8 columns.
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "repquant/runtime/kernels/gemm_i8/tiles256.h"

namespace repquant::runtime {
namespace {

constexpr int kRows = 6;

#define REPQUANT_INLINE REPQUANT_AVXVNNI __attribute__((always_inline)) inline

// As assembly under g++, which otherwise moves accumulators to the stack.
REPQUANT_INLINE void dot4(__m256i& acc, __m256i codes, __m256i weights) {
#if defined(__clang__)
  acc = _mm256_dpbusd_avx_epi32(acc, codes, weights);
#else
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(weights));
#endif
}

template <int kTileRows, int kQuads>
REPQUANT_INLINE void step(const uint8_t* const (&a)[kTileRows], const int64_t (&at)[kQuads],
                          const int8_t* panel, __m256i (&acc)[kQuads][kTileRows][2]) {
#pragma GCC unroll 4
  for (int q = 0; q < kQuads; ++q) {
    const auto* w = reinterpret_cast<const __m256i*>(panel) + 2 * q;
    const __m256i w0 = _mm256_loadu_si256(w), w1 = _mm256_loadu_si256(w + 1);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      int32_t quad;
      std::memcpy(&quad, a[r] + at[q], 4);
      const __m256i codes = _mm256_set1_epi32(quad);
      dot4(acc[q][r][0], codes, w0);
      dot4(acc[q][r][1], codes, w1);
    }
  }
}

// A function of its own: inlined into its callers, g++ 12 keeps accumulators on the stack.
template <int kTileRows>
__attribute__((noinline)) REPQUANT_AVXVNNI void tile(const GemmI8Args& args, RowCursor& cursor,
                                                     const int8_t* panel, int64_t row,
                                                     int64_t first) {
  constexpr int kQuads = kTileRows == 1 ? 4 : kTileRows <= 3 ? 2 : 1;
  const uint8_t* a[kTileRows];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) a[r] = cursor.next();
  __m256i acc[kQuads][kTileRows][2];
#pragma GCC unroll 4
  for (int q = 0; q < kQuads; ++q) {
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) acc[q][r][0] = acc[q][r][1] = _mm256_setzero_si256();
  }
  const int64_t quads = quads_of(args.shape), whole = quads / kQuads * kQuads;
  const int32_t* offsets = args.quad_offsets;
  int64_t at[kQuads];
  for (int64_t q = 0; q < whole; q += kQuads, panel += 4 * tiles256::kPanel * kQuads) {
#pragma GCC unroll 4
    for (int i = 0; i < kQuads; ++i) at[i] = offsets == nullptr ? 4 * (q + i) : offsets[q + i];
    step(a, at, panel, acc);
  }
  for (int64_t q = whole; kQuads > 1 && q < quads; ++q, panel += 4 * tiles256::kPanel) {
    const int64_t one[1] = {offsets == nullptr ? 4 * q : offsets[q]};
    step(a, one, panel, reinterpret_cast<__m256i(&)[1][kTileRows][2]>(acc[0]));
  }
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
    __m256i t0 = acc[0][r][0], t1 = acc[0][r][1];
#pragma GCC unroll 4
    for (int q = 1; q < kQuads; ++q) {
      t0 = _mm256_add_epi32(t0, acc[q][r][0]);
      t1 = _mm256_add_epi32(t1, acc[q][r][1]);
    }
    tiles256::finish16(args, t0, t1, row + r, first);
  }
}

REPQUANT_AVXVNNI void panel(const GemmI8Args& args, const int8_t* weights, int64_t first) {
  RowCursor cursor(args);
  int64_t row = 0;
  for (; row + kRows <= args.rows; row += kRows) tile<kRows>(args, cursor, weights, row, first);
  switch (args.rows - row) {
    case 1:
      return tile<1>(args, cursor, weights, row, first);
    case 2:
      return tile<2>(args, cursor, weights, row, first);
    case 3:
      return tile<3>(args, cursor, weights, row, first);
    case 4:
      return tile<4>(args, cursor, weights, row, first);
    case 5:
      return tile<5>(args, cursor, weights, row, first);
    default:
      return;
  }
}

REPQUANT_AVXVNNI void run(const GemmI8Args& args) noexcept {
  for_row_blocks(gemm_i8_avxvnni, args, [](const GemmI8Args& piece) {
    const int64_t depth = quad_depth(piece.shape);
    for (int64_t first = 0; first < piece.shape.n; first += tiles256::kPanel)
      panel(piece, static_cast<const int8_t*>(piece.weights) + first * depth, first);
  });
}

}  // namespace

const GemmI8Kernel gemm_i8_avxvnni{.name = "gemm_i8/avxvnni",
                                   .isa = Isa::kAvxVnni,
                                   .tile_rows = kRows,
                                   .panel = tiles256::kPanel,
                                   .weight_bytes = 1,
                                   .packed_bytes = tiles256::packed_bytes,
                                   .pack = tiles256::pack,
                                   .scratch_bytes = [](const GemmI8Shape&) { return sums_bytes(); },
                                   .sums = tiles256::row_sums,
                                   .run = run};

}  // namespace repquant::runtime
#endif
