#pragma once
// Tiles of the AVX512-VNNI rows of gemm_i8 and gemm_i4: what differs is how weights are loaded.
#include <immintrin.h>

#include <cstring>

#include "repquant/runtime/kernels/gemm_i8/rows.h"
#include "repquant/runtime/kernels/vnni512.h"

namespace repquant::runtime::tiles512 {
namespace {

constexpr int64_t kPanel = vnni512::kColumns;

inline int64_t panel_width(const GemmI8Shape& shape, int64_t first) {
  return std::min(kPanel, round_up(shape.n, 16) - first);
}

// Weights as bytes; load(q, v): those of the q-th quad from here on, columns 16 v .. 16 v + 15.
struct Bytes {
  const int8_t* at;
  REPQUANT_INLINE512 explicit Bytes(const void* panel) : at(static_cast<const int8_t*>(panel)) {}
  template <int kQuads, int kVectors> REPQUANT_INLINE512 void load(__m512i (&w)[kQuads][kVectors]) {
#pragma GCC unroll 4
    for (int q = 0; q < kQuads; ++q) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) w[q][v] = _mm512_loadu_si512(at + 64 * (q * kVectors + v));
    }
    at += 64 * kQuads * kVectors;
  }
};

// Quads at a time for a tile of so many accumulators.
constexpr int phases(int accumulators) {
  return accumulators <= 4 ? 4 : accumulators <= 12 ? 2 : 1;
}

template <int kRows, int kVectors, int kQuads, class Weights>
REPQUANT_INLINE512 void step(const uint8_t* const (&a)[kRows], const int64_t (&at)[kQuads],
                             Weights& weights, __m512i (&acc)[kQuads][kRows][kVectors]) {
  __m512i w[kQuads][kVectors];
  weights.load(w);
#pragma GCC unroll 4
  for (int q = 0; q < kQuads; ++q) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      int32_t quad;
      std::memcpy(&quad, a[r] + at[q], 4);
      const __m512i codes = _mm512_set1_epi32(quad);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) vnni512::dot4(acc[q][r][v], codes, w[q][v]);
    }
  }
}

template <int kRows, int kVectors, class Weights>
REPQUANT_INLINE512 void products(const int32_t* offsets, int64_t quads,
                                 const uint8_t* const (&a)[kRows], Weights weights,
                                 __m512i (&sum)[kRows][kVectors]) {
  constexpr int kQuads = phases(kRows * kVectors);
  __m512i acc[kQuads][kRows][kVectors];
#pragma GCC unroll 4
  for (int q = 0; q < kQuads; ++q) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[q][r][v] = _mm512_setzero_si512();
    }
  }
  const int64_t whole = quads / kQuads * kQuads;
  int64_t at[kQuads];
  if (offsets == nullptr) {
    for (int64_t q = 0; q < whole; q += kQuads) {
#pragma GCC unroll 4
      for (int i = 0; i < kQuads; ++i) at[i] = 4 * (q + i);
      step(a, at, weights, acc);
    }
  } else {
    for (int64_t q = 0; q < whole; q += kQuads) {
#pragma GCC unroll 4
      for (int i = 0; i < kQuads; ++i) at[i] = offsets[q + i];
      step(a, at, weights, acc);
    }
  }
  if constexpr (kQuads > 1) {
    for (int64_t q = whole; q < quads; ++q) {
      const int64_t one[1] = {offsets == nullptr ? 4 * q : offsets[q]};
      step(a, one, weights, reinterpret_cast<__m512i(&)[1][kRows][kVectors]>(acc[0]));
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = acc[0][r][v];
#pragma GCC unroll 4
      for (int q = 1; q < kQuads; ++q) sum[r][v] = _mm512_add_epi32(sum[r][v], acc[q][r][v]);
    }
  }
}

// Sixteen columns from `column` on, of rows [row, row + kRows): t to codes or floats.
template <int kRows, int kVectors>
REPQUANT_INLINE512 void finish(const GemmI8Args& args, __m512i (&acc)[kRows][kVectors], int64_t row,
                               int64_t first) {
  const int64_t n = args.shape.n;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t column = first + 16 * v;
    if (column >= n) break;
    const auto live = static_cast<__mmask16>(n - column >= 16 ? 0xffff : (1 << (n - column)) - 1);
    const __m512i c = _mm512_maskz_loadu_epi32(live, args.c + column);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r][v] = _mm512_add_epi32(acc[r][v], c);
    if (args.zw != nullptr) {
      const __m512i zw = _mm512_maskz_loadu_epi32(live, args.zw + column);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r)
        acc[r][v] = _mm512_sub_epi32(acc[r][v],
                                     _mm512_mullo_epi32(zw, _mm512_set1_epi32(args.sums[row + r])));
    }
    const int64_t at = row * args.out_stride + column;
    if (args.codes != nullptr) {
      const __m512 m = _mm512_maskz_loadu_ps(live, args.m + column);
      const vnni512::Codes codes(args.zero, args.lo, args.hi);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m512i q = codes.round(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][v]), m));
        uint8_t* to = args.codes + at + r * args.out_stride;
        if (live == 0xffff) {
          _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(q));
        } else {
          _mm512_mask_cvtepi32_storeu_epi8(to, live, q);
        }
      }
      continue;
    }
    const __m512 s = _mm512_maskz_loadu_ps(live, args.s + column);
    const __m512 b = _mm512_maskz_loadu_ps(live, args.b + column);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const int64_t to = at + r * args.out_stride;
      __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][v]), s, b);
      if (args.residual != nullptr)
        y = _mm512_add_ps(_mm512_maskz_loadu_ps(live, args.residual + to), y);
      _mm512_mask_storeu_ps(args.out + to, live, y);
    }
  }
}

// Rows [row, end), in tiles of kRows. A function of its own: inlined into its callers, g++ 12 keeps
// accumulators on the stack.
template <class Weights, int kRows, int kVectors>
__attribute__((noinline)) REPQUANT_AVX512VNNI void tile(const GemmI8Args& args, RowCursor& cursor,
                                                        const void* panel, int64_t row, int64_t end,
                                                        int64_t first) {
  const int64_t quads = quads_of(args.shape);
  const int32_t* offsets = args.quad_offsets;
  for (; row < end; row += kRows) {
    const uint8_t* a[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) a[r] = cursor.next();
    __m512i acc[kRows][kVectors];
    products<kRows, kVectors>(offsets, quads, a, Weights(panel), acc);
    finish<kRows, kVectors>(args, acc, row, first);
  }
}

template <class Weights, int kVectors>
REPQUANT_AVX512VNNI void tiles(const GemmI8Args& args, const void* panel, int64_t first) {
  constexpr int kRows = kVectors == 4 ? 6 : 8;
  RowCursor cursor(args);
  const int64_t row = args.rows / kRows * kRows, end = args.rows;
  if (row > 0) tile<Weights, kRows, kVectors>(args, cursor, panel, 0, row, first);
  switch (end - row) {
    case 1:
      return tile<Weights, 1, kVectors>(args, cursor, panel, row, end, first);
    case 2:
      return tile<Weights, 2, kVectors>(args, cursor, panel, row, end, first);
    case 3:
      return tile<Weights, 3, kVectors>(args, cursor, panel, row, end, first);
    case 4:
      return tile<Weights, 4, kVectors>(args, cursor, panel, row, end, first);
    case 5:
      return tile<Weights, 5, kVectors>(args, cursor, panel, row, end, first);
    case 6:
      return tile < Weights, kRows == 8 ? 6 : 1, kVectors > (args, cursor, panel, row, end, first);
    case 7:
      return tile < Weights, kRows == 8 ? 7 : 1, kVectors > (args, cursor, panel, row, end, first);
    default:
      return;
  }
}

// All rows times the columns of the panel that begins at column `first`.
template <class Weights>
REPQUANT_AVX512VNNI void run_panel(const GemmI8Args& args, const void* panel, int64_t first) {
  switch (panel_width(args.shape, first) / 16) {
    case 1:
      return tiles<Weights, 1>(args, panel, first);
    case 2:
      return tiles<Weights, 2>(args, panel, first);
    case 3:
      return tiles<Weights, 3>(args, panel, first);
    default:
      return tiles<Weights, 4>(args, panel, first);
  }
}

REPQUANT_INLINE512 uint32_t code_sum(const uint8_t* a, int64_t count) {
  if (count > 16) return vnni512::byte_sum(a, count);
  const auto live = static_cast<__mmask16>((1u << count) - 1);
  const __m128i sum = _mm_sad_epu8(_mm_maskz_loadu_epi8(live, a), _mm_setzero_si128());
  return static_cast<uint32_t>(_mm_cvtsi128_si32(sum) + _mm_extract_epi32(sum, 2));
}

[[maybe_unused]] REPQUANT_AVX512VNNI __attribute__((flatten)) void row_sums(
    const GemmI8Args& args, int32_t* sums) noexcept {
  sum_rows(args, sums,
           [](const uint8_t* a, int64_t count) REPQUANT_AVX512VNNI { return code_sum(a, count); });
}

}  // namespace
}  // namespace repquant::runtime::tiles512
