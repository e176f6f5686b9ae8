#define REPQUANT_ROW
#include "repquant/runtime/kernels/gemm_i8/portable.h"

namespace repquant::runtime {

const GemmI8Kernel gemm_i8_scalar{.name = "gemm_i8/scalar",
                                  .isa = Isa::kScalar,
                                  .tile_rows = kDotRows,
                                  .panel = 64,
                                  .weight_bytes = 2,
                                  .packed_bytes = packed_bytes,
                                  .pack = pack,
                                  .scratch_bytes = scratch_bytes,
                                  .sums = row_sums,
                                  .run = run};

int64_t quad_count(const GemmI8Shape& shape) { return quads_of(shape); }

void write_quad_offsets(const GemmI8Shape& shape, const int64_t* line_offsets, int32_t* offsets) {
  const int64_t quads = line_quads(shape);
  for (int64_t q = 0; q < quads_of(shape); ++q)
    offsets[q] = static_cast<int32_t>(line_offsets[q / quads] + q % quads * 4);
}

int64_t pair_bound(const GemmI8Shape& shape, const int8_t* codes, int32_t top) {
  const int64_t line = line_length(shape);
  int32_t most = 0;
  for (int64_t row = 0; row < shape.n * shape.lines; ++row, codes += line) {
    for (int64_t k = 0; k < line; k += 2) {
      const int32_t x = codes[k], y = k + 1 < line ? codes[k + 1] : 0;
      most = std::max({most, std::max(x, 0) + std::max(y, 0), -std::min(x, 0) - std::min(y, 0)});
    }
  }
  return int64_t{most} * top;
}

}  // namespace repquant::runtime
