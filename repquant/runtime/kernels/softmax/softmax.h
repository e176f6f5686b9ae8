#pragma once
// softmax: softmax and l2_norm of rows (core/plan.h): f32, sums in 16 virtual lanes.
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

struct SoftmaxArgs {
  const float* x = nullptr;  // [rows][channels]
  float* out = nullptr;      // may be x
  int64_t rows = 0, channels = 0;
  float eps = 0;  // l2_norm
};

struct SoftmaxKernel {
  std::string_view name;
  Isa isa;
  void (*softmax)(const SoftmaxArgs&) noexcept;
  void (*l2_norm)(const SoftmaxArgs&) noexcept;
};

std::span<const SoftmaxKernel* const> softmax_kernels();

// Rows, each defined where its instruction set exists.
extern const SoftmaxKernel softmax_scalar, softmax_avx2, softmax_avx512vnni;

}  // namespace repquant::runtime
