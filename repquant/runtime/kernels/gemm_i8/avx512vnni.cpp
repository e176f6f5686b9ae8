// AVX512-VNNI: tiles of 6 rows by 64 columns, 24 accumulators. Weights lie in panels of 64 columns
// (the last one of 16, 32 or 48), [K/4][columns][4], so that one 64-byte load holds four products'
// worth of 16 columns.
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "repquant/runtime/kernels/gemm_i8/quads.h"
#include "repquant/runtime/kernels/vnni512.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kRows = vnni512::kRows;

size_t packed_bytes(const GemmI8Shape& shape) {
  return static_cast<size_t>(round_up(shape.n, 16) * quad_depth(shape));
}

int64_t panel_width(const GemmI8Shape& shape, int64_t first) {
  return std::min(vnni512::kColumns, round_up(shape.n, 16) - first);
}

void pack(const GemmI8Shape& shape, const int8_t* codes, void* packed) {
  std::memset(packed, 0, packed_bytes(shape));
  const int64_t depth = quad_depth(shape);
  for (int64_t first = 0; first < shape.n; first += vnni512::kColumns) {
    const int64_t width = panel_width(shape, first);
    auto* panel = static_cast<int8_t*>(packed) + first * depth;
    const int64_t live = std::min(width, shape.n - first);
    for (int64_t n = 0; n < live; ++n) {
      const int8_t* row = codes + (first + n) * shape.k;
      int64_t k = 0;
      for (; k + 4 <= shape.k; k += 4) std::memcpy(panel + (k / 4 * width + n) * 4, row + k, 4);
      std::memcpy(panel + (k / 4 * width + n) * 4, row + k, static_cast<size_t>(shape.k - k));
    }
  }
}

struct Block {
  const uint8_t* a;
  int64_t stride;
  int64_t row, rows;  // of the matrix
};

REPQUANT_AVX512VNNI void row_sums(const GemmI8Args& args, const Block& block, int64_t rows,
                                  int32_t* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* a = args.a + (block.row + r) * args.shape.k;
    const auto depth = static_cast<uint32_t>(args.shape.k);
    sums[r] = static_cast<int32_t>(vnni512::byte_sum(a, args.shape.k) -
                                   depth * static_cast<uint32_t>(args.za));
  }
}

template <int kTileRows, int kVectors>
REPQUANT_AVX512VNNI void tile(const GemmI8Args& args, const Block& block, const int8_t* panel,
                              int64_t first) {
  __m512i acc[kTileRows][kVectors];
  vnni512::products<kTileRows, kVectors>(block.a, block.stride, panel, quad_depth(args.shape) / 4,
                                         acc);
  int32_t sums[kTileRows] = {};
  if (args.zw != nullptr) row_sums(args, block, kTileRows, sums);
  const int64_t n = args.shape.n;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t column = first + 16 * v;
    if (column >= n) break;
    const auto live = static_cast<__mmask16>(n - column >= 16 ? 0xffff : (1 << (n - column)) - 1);
    const __m512i c = _mm512_maskz_loadu_epi32(live, args.c + column);
    const __m512i zw = args.zw == nullptr ? _mm512_setzero_si512()
                                          : _mm512_maskz_loadu_epi32(live, args.zw + column);
    if (args.codes != nullptr) {
      const __m512 m = _mm512_maskz_loadu_ps(live, args.m + column);
      const vnni512::Codes codes(args.zero, args.lo, args.hi);
#pragma GCC unroll 6
      for (int r = 0; r < kTileRows; ++r) {
        __m512i t = _mm512_add_epi32(acc[r][v], c);
        if (args.zw != nullptr)
          t = _mm512_sub_epi32(t, _mm512_mullo_epi32(zw, _mm512_set1_epi32(sums[r])));
        codes.store(_mm512_mul_ps(_mm512_cvtepi32_ps(t), m), live,
                    args.codes + (block.row + r) * n + column);
      }
      continue;
    }
    const __m512 s = _mm512_maskz_loadu_ps(live, args.s + column);
    const __m512 b = _mm512_maskz_loadu_ps(live, args.b + column);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t at = (block.row + r) * n + column;
      __m512i t = _mm512_add_epi32(acc[r][v], c);
      if (args.zw != nullptr)
        t = _mm512_sub_epi32(t, _mm512_mullo_epi32(zw, _mm512_set1_epi32(sums[r])));
      __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(t), s, b);
      if (args.residual != nullptr)
        y = _mm512_add_ps(_mm512_maskz_loadu_ps(live, args.residual + at), y);
      _mm512_mask_storeu_ps(args.out + at, live, y);
    }
  }
}

template <int kVectors>
REPQUANT_AVX512VNNI void tiles(const GemmI8Args& args, Block block, const int8_t* panel,
                               int64_t first) {
  for (; block.rows >= kRows; block.rows -= kRows) {
    tile<kRows, kVectors>(args, block, panel, first);
    block.row += kRows;
    block.a += kRows * block.stride;
  }
  switch (block.rows) {
    case 1:
      return tile<1, kVectors>(args, block, panel, first);
    case 2:
      return tile<2, kVectors>(args, block, panel, first);
    case 3:
      return tile<3, kVectors>(args, block, panel, first);
    case 4:
      return tile<4, kVectors>(args, block, panel, first);
    case 5:
      return tile<5, kVectors>(args, block, panel, first);
    default:
      return;
  }
}

REPQUANT_AVX512VNNI void panels(const GemmI8Args& args, const Block& block) {
  const int64_t depth = quad_depth(args.shape);
  for (int64_t first = 0; first < args.shape.n; first += vnni512::kColumns) {
    const int8_t* panel = static_cast<const int8_t*>(args.weights) + first * depth;
    switch (panel_width(args.shape, first) / 16) {
      case 1:
        tiles<1>(args, block, panel, first);
        break;
      case 2:
        tiles<2>(args, block, panel, first);
        break;
      case 3:
        tiles<3>(args, block, panel, first);
        break;
      default:
        tiles<4>(args, block, panel, first);
        break;
    }
  }
}

REPQUANT_AVX512VNNI void run(const GemmI8Args& args) noexcept {
  for_quad_rows(args, [&args](const uint8_t* a, int64_t stride, int64_t row, int64_t rows) {
    panels(args, {a, stride, row, rows});
  });
}

}  // namespace

const GemmI8Kernel gemm_i8_avx512vnni{
    "gemm_i8/avx512vnni", Isa::kAvx512Vnni, kRows, packed_bytes, pack, quad_scratch_bytes, run};

}  // namespace repquant::runtime
#endif
