#pragma once
// Products of up to 16 columns. A broadcast of four codes would serve one product alone, and
// broadcasts are what such products wait for. So sixteen codes are broadcast to each quarter of a
// vector, and meet four columns; what four columns have gathered in quarters is added up at the
// end.
#include "repquant/runtime/kernels/gemm_i8/tiles512.h"

namespace repquant::runtime::narrow512 {
namespace {

constexpr int64_t kGroup = 16;  // codes of a broadcast

inline int64_t line_groups(const GemmI8Shape& shape) {
  return (line_length(shape) + kGroup - 1) / kGroup;
}
inline int64_t vectors_of(const GemmI8Shape& shape) { return (shape.n + 3) / 4; }

// Whether it takes less time: a broadcast and two products a cycle.
inline bool pays(const GemmI8Shape& shape) {
  return shape.n <= 16 &&
         line_groups(shape) * std::max<int64_t>(2, vectors_of(shape)) < 2 * line_quads(shape);
}

// [K/16][columns/4][4 columns][16 codes]
inline size_t packed_bytes(const GemmI8Shape& shape) {
  return static_cast<size_t>(shape.lines * line_groups(shape) * vectors_of(shape) * 64);
}

inline void pack(const GemmI8Shape& shape, const int8_t* codes, void* packed) {
  auto* to = static_cast<int8_t*>(packed);
  std::memset(to, 0, packed_bytes(shape));
  const int64_t line = line_length(shape), vectors = vectors_of(shape);
  for (int64_t n = 0; n < shape.n; ++n) {
    for (int64_t l = 0; l < shape.lines; ++l, codes += line) {
      for (int64_t k = 0; k < line; ++k) {
        const int64_t group = l * line_groups(shape) + k / kGroup;
        to[(group * vectors * 4 + n) * kGroup + k % kGroup] = codes[k];
      }
    }
  }
}

// Sums of the quarters of four vectors: dword v of quarter c is that of vector v, quarter c.
REPQUANT_INLINE512 __m512i add_up(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

template <int kRows, int kVectors>
__attribute__((noinline)) REPQUANT_AVX512VNNI void tile(const GemmI8Args& args, RowCursor& cursor,
                                                        int64_t row, int64_t end) {
  const int64_t lines = args.shape.lines, groups = line_groups(args.shape);
  const int64_t quads = line_quads(args.shape);
  const __m512i zero = _mm512_setzero_si512();
  // Dword v of quarter c is column 4 v + c.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (; row < end; row += kRows) {
    const uint8_t* a[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) a[r] = cursor.next();
    __m512i acc[kRows][4];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = acc[r][2] = acc[r][3] = zero;
    const auto* panel = static_cast<const int8_t*>(args.weights);
    for (int64_t l = 0; l < lines; ++l) {
      int64_t at = args.quad_offsets == nullptr ? 0 : args.quad_offsets[l * quads];
      for (int64_t g = 0; g < groups; ++g, at += kGroup) {
        __m512i w[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) w[v] = _mm512_loadu_si512(panel + 64 * v);
        panel += 64 * kVectors;
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const __m512i codes =
              _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a[r] + at)));
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) vnni512::dot4(acc[r][v], codes, w[v]);
        }
      }
    }
    __m512i sums[kRows][1];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      sums[r][0] =
          _mm512_permutexvar_epi32(order, add_up(acc[r][0], acc[r][1], acc[r][2], acc[r][3]));
    }
    tiles512::finish<kRows, 1>(args, sums, row, 0);
  }
}

template <int kVectors> REPQUANT_AVX512VNNI void tiles(const GemmI8Args& args) {
  constexpr int kRows = kVectors == 4 ? 6 : 8;
  RowCursor cursor(args);
  const int64_t whole = args.rows / kRows * kRows;
  if (whole > 0) tile<kRows, kVectors>(args, cursor, 0, whole);
  if (whole < args.rows) tile<1, kVectors>(args, cursor, whole, args.rows);
}

REPQUANT_AVX512VNNI void run(const GemmI8Args& args) {
  switch (vectors_of(args.shape)) {
    case 1:
      return tiles<1>(args);
    case 2:
      return tiles<2>(args);
    case 3:
      return tiles<3>(args);
    default:
      return tiles<4>(args);
  }
}

}  // namespace
}  // namespace repquant::runtime::narrow512
