// Blocks of 6 rows and 16 columns: 12 chains of multiply-adds side by side.
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include "repquant/runtime/kernels/float256.h"
#include "repquant/runtime/kernels/matmul_f32/matmul_f32.h"

namespace repquant::runtime {
namespace {

constexpr int kRows = 6;

// kVectors vectors of columns from `first` on, of which the last one may be ragged.
template <int kTileRows, int kVectors>
REPQUANT_AVX2 __attribute__((noinline)) void tile(const MatmulF32Args& args, int64_t row,
                                                  int64_t first) {
  __m256 sums[kTileRows][kVectors];
#pragma GCC unroll 6
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm256_setzero_ps();
  }
  const float* x = args.x + row * args.depth;
  const float* w = args.w + first;
  const int64_t left = args.columns - first - 8 * (kVectors - 1);
  const __m256i tail = float256::first_lanes(left);
  const auto multiply = [&](int64_t k, const __m256(&right)[kVectors]) REPQUANT_AVX2 {
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m256 one = _mm256_broadcast_ss(x + r * args.depth + k);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm256_fmadd_ps(one, right[v], sums[r][v]);
    }
  };
  for (int64_t k = 0; k < args.depth; ++k, w += args.columns) {
    __m256 right[kVectors];
    if constexpr (kVectors == 2) right[0] = _mm256_loadu_ps(w);
    right[kVectors - 1] = left >= 8 ? _mm256_loadu_ps(w + 8 * (kVectors - 1))
                                    : _mm256_maskload_ps(w + 8 * (kVectors - 1), tail);
    multiply(k, right);
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const __m256i live = float256::first_lanes(args.columns - first - 8 * v);
    const int64_t column = first + 8 * v;
    const __m256 bias =
        args.bias == nullptr ? _mm256_setzero_ps() : _mm256_maskload_ps(args.bias + column, live);
#pragma GCC unroll 6
    for (int r = 0; r < kTileRows; ++r) {
      const __m256 y = args.bias == nullptr ? sums[r][v] : _mm256_add_ps(sums[r][v], bias);
      _mm256_maskstore_ps(args.out + (row + r) * args.columns + column, live, y);
    }
  }
}

template <int kTileRows> void band(const MatmulF32Args& args, int64_t row) {
  for (int64_t first = 0; first < args.columns; first += 16) {
    if (args.columns - first > 8) tile<kTileRows, 2>(args, row, first);
    else tile<kTileRows, 1>(args, row, first);
  }
}

REPQUANT_AVX2 void run(const MatmulF32Args& args) noexcept {
  int64_t row = 0;
  for (; row + kRows <= args.rows; row += kRows) band<kRows>(args, row);
  for (; row < args.rows; ++row) band<1>(args, row);
}

}  // namespace

const MatmulF32Kernel matmul_f32_avx2{"matmul_f32/avx2", Isa::kAvx2, run};

}  // namespace repquant::runtime
#endif
