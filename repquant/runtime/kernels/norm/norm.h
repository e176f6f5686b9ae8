#pragma once
// norm: layer_norm, rms_norm and mean_rows (core/plan.h). Row sums run in 16 virtual lanes, element
// i in lane i mod 16, lanes l and l+8, l+4, l+2, l+1 combined at the end.
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

struct NormArgs {
  const float* x = nullptr;  // [rows][channels]
  int64_t rows = 0, channels = 0;
  const float* gain = nullptr;  // [channels]
  const float* beta = nullptr;  // [channels]; rms_norm: may be nullptr
  float eps = 0;
  uint8_t* codes = nullptr;  // codes out ...
  int32_t zero = 0, lo = 0, hi = 255;
  float* out = nullptr;  // ... or f32 out; may be `x`
};

struct MeanRowsArgs {        // one item, channels [first, first + count)
  const float* x = nullptr;  // [rows][channels]
  float* out = nullptr;      // [channels]
  int64_t rows = 0, channels = 0;
  int64_t first = 0, count = 0;  // count <= kMeanRowsBlock
};
inline constexpr int64_t kMeanRowsBlock = 64;

struct NormKernel {
  std::string_view name;
  Isa isa;
  void (*layer_norm)(const NormArgs&) noexcept;
  void (*rms_norm)(const NormArgs&) noexcept;
  void (*mean_rows)(const MeanRowsArgs&) noexcept;
};

std::span<const NormKernel* const> norm_kernels();

// Rows, each defined where its instruction set exists.
extern const NormKernel norm_scalar, norm_avx2, norm_avx512vnni;

}  // namespace repquant::runtime
