#pragma once
// gemm_i4: gemm_i8 with weights of 2, 3 or 4 bits that stay packed in memory. A row unpacks one
// panel at a time into scratch, in the layout of a row of gemm_i8, which multiplies it; or unpacks
// in registers where rows of codes are few. Results are those of gemm_i8.
//
// Packed: panel after panel of the gemm_i8 row's weights, in groups of vectors of 64 codes, each
// code plus 2^(bits-1). 4 bits: byte i of 64 holds code i of the group's two vectors, the first in
// the low nibble; 2 bits: of four vectors; 3 bits: of eight, their low two bits as twice 64 bytes,
// then 64 bytes whose bit v is the high bit of vector v.
#include "repquant/runtime/kernels/gemm_i8/gemm_i8.h"

namespace repquant::runtime {

struct GemmI4Kernel {
  std::string_view name;
  Isa isa;
  const GemmI8Kernel* wide;  // the row of gemm_i8 behind it
  // `bits`: 2, 3 or 4; codes within -2^(bits-1) .. 2^(bits-1) - 1.
  size_t (*packed_bytes)(const GemmI8Shape&, int bits);
  void (*pack)(const GemmI8Shape&, int bits, const int8_t* codes, void* packed);  // codes [n][k]
  size_t (*scratch_bytes)(const GemmI8Shape&);
  void (*run)(const GemmI8Args&, int bits) noexcept;  // weights as written by `pack`
};

std::span<const GemmI4Kernel* const> gemm_i4_kernels();  // best first

// Rows, each defined where its instruction set exists.
extern const GemmI4Kernel gemm_i4_scalar, gemm_i4_avx2, gemm_i4_avxvnni, gemm_i4_avx512vnni,
    gemm_i4_amx;

}  // namespace repquant::runtime
