#pragma once
// matmul_f32: products of f32 matrices in the fixed order of core/plan.h, step `matmul`: every sum
// is one chain of fused multiply-adds with k ascending.
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

struct MatmulF32Args {
  const float* x = nullptr;     // [rows][depth]
  const float* w = nullptr;     // [depth][columns]
  const float* bias = nullptr;  // [columns], may be nullptr
  float* out = nullptr;         // [rows][columns]
  int64_t rows = 0, depth = 0, columns = 0;
};

struct MatmulF32Kernel {
  std::string_view name;
  Isa isa;
  void (*run)(const MatmulF32Args&) noexcept;
};

std::span<const MatmulF32Kernel* const> matmul_f32_kernels();

// Rows, each defined where its instruction set exists.
extern const MatmulF32Kernel matmul_f32_scalar, matmul_f32_avx2, matmul_f32_avx512vnni;

}  // namespace repquant::runtime
