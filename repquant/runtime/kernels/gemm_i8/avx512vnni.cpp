// AVX512-VNNI: tiles of 6 rows by 64 columns, 24 accumulators. Weights lie in panels of 64 columns
// (the last one of 16, 32 or 48), [K/4][columns][4], so that one 64-byte load holds four products'
// worth of 16 columns. Narrow tiles take several quads at a time in accumulators of their own, to
// hide the latency of the products.
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"
#include "repquant/runtime/kernels/target.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "repquant/runtime/kernels/gemm_i8/narrow512.h"
#include "repquant/runtime/kernels/gemm_i8/tiles512.h"

namespace repquant::runtime {
namespace {

size_t packed_bytes(const GemmI8Shape& shape) {
  if (narrow512::pays(shape)) return narrow512::packed_bytes(shape);
  return static_cast<size_t>(round_up(shape.n, 16) * quad_depth(shape));
}

void pack(const GemmI8Shape& shape, const int8_t* codes, void* packed) {
  if (narrow512::pays(shape)) return narrow512::pack(shape, codes, packed);
  std::memset(packed, 0, packed_bytes(shape));
  const int64_t depth = quad_depth(shape), line = line_length(shape);
  for (int64_t first = 0; first < shape.n; first += tiles512::kPanel) {
    const int64_t width = tiles512::panel_width(shape, first);
    auto* panel = static_cast<int8_t*>(packed) + first * depth;
    for (int64_t n = 0; n < std::min(width, shape.n - first); ++n) {
      const int8_t* row = codes + (first + n) * shape.k;
      for (int64_t l = 0; l < shape.lines; ++l, row += line) {
        for (int64_t k = 0; k < line; k += 4) {
          const int64_t quad = l * line_quads(shape) + k / 4;
          std::memcpy(panel + (quad * width + n) * 4, row + k,
                      static_cast<size_t>(std::min<int64_t>(4, line - k)));
        }
      }
    }
  }
}

REPQUANT_AVX512VNNI void run(const GemmI8Args& args) noexcept {
  for_row_blocks(gemm_i8_avx512vnni, args, [](const GemmI8Args& piece) {
    if (narrow512::pays(piece.shape)) return narrow512::run(piece);
    const int64_t depth = quad_depth(piece.shape);
    for (int64_t first = 0; first < piece.shape.n; first += tiles512::kPanel) {
      const int8_t* panel = static_cast<const int8_t*>(piece.weights) + first * depth;
      tiles512::run_panel<tiles512::Bytes>(piece, panel, first);
    }
  });
}

}  // namespace

const GemmI8Kernel gemm_i8_avx512vnni{
    .name = "gemm_i8/avx512vnni",
    .isa = Isa::kAvx512Vnni,
    .tile_rows = vnni512::kRows,
    .panel = tiles512::kPanel,
    .weight_bytes = 1,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = [](const GemmI8Shape&) { return sums_bytes(); },
    .sums = tiles512::row_sums,
    .run = run};

}  // namespace repquant::runtime
#endif
