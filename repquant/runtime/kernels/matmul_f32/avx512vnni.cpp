// Blocks of 6 rows and 64 columns: 24 chains of multiply-adds side by side.
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include <algorithm>

#include "repquant/runtime/kernels/float512.h"
#include "repquant/runtime/kernels/matmul_f32/matmul_f32.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kRows = 6;

template <int kTileRows, int kVectors>
REPQUANT_AVX512VNNI __attribute__((noinline)) void tile(const MatmulF32Args& args, int64_t row,
                                                        int64_t first) {
  __m512 sums[kTileRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_setzero_ps();
  }
  const float* x = args.x + row * args.depth;
  const float* w = args.w + first;
  const __mmask16 tail = float512::first_lanes(args.columns - first - 16 * (kVectors - 1));
  for (int64_t k = 0; k < args.depth; ++k, w += args.columns) {
    __m512 right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors - 1; ++v) right[v] = _mm512_loadu_ps(w + 16 * v);
    right[kVectors - 1] = _mm512_maskz_loadu_ps(tail, w + 16 * (kVectors - 1));
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m512 left = _mm512_set1_ps(x[r * args.depth + k]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_fmadd_ps(left, right[v], sums[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const __mmask16 live = v == kVectors - 1 ? tail : static_cast<__mmask16>(0xffff);
    const int64_t column = first + 16 * v;
    const __m512 bias = args.bias == nullptr ? _mm512_setzero_ps()
                                             : _mm512_maskz_loadu_ps(live, args.bias + column);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m512 y = args.bias == nullptr ? sums[r][v] : _mm512_add_ps(sums[r][v], bias);
      _mm512_mask_storeu_ps(args.out + (row + r) * args.columns + column, live, y);
    }
  }
}

template <int kTileRows> void band(const MatmulF32Args& args, int64_t row) {
  for (int64_t first = 0; first < args.columns; first += 64) {
    switch ((std::min<int64_t>(64, args.columns - first) + 15) / 16) {
      case 1:
        tile<kTileRows, 1>(args, row, first);
        break;
      case 2:
        tile<kTileRows, 2>(args, row, first);
        break;
      case 3:
        tile<kTileRows, 3>(args, row, first);
        break;
      default:
        tile<kTileRows, 4>(args, row, first);
    }
  }
}

REPQUANT_AVX512VNNI void run(const MatmulF32Args& args) noexcept {
  int64_t row = 0;
  for (; row + kRows <= args.rows; row += kRows) band<kRows>(args, row);
  for (; row < args.rows; ++row) band<1>(args, row);
}

}  // namespace

const MatmulF32Kernel matmul_f32_avx512vnni{"matmul_f32/avx512vnni", Isa::kAvx512Vnni, run};

}  // namespace repquant::runtime
#endif
