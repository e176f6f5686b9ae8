#pragma once
// floats: element-wise operations on two f32 operands and reductions, by the laws of
// core/format/functions.h. Kernels check nothing and allocate nothing.
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/core/format/functions.h"
#include "repquant/core/plan_window.h"
#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

struct BroadcastArgs {  // out[i] = a[i * a_step] op b[i * b_step], steps 0 or 1
  BinaryKind kind = BinaryKind::kAdd;
  const float *a = nullptr, *b = nullptr;
  int64_t a_step = 1, b_step = 1;
  float* out = nullptr;  // may be an operand of step 1
  int64_t count = 0;
};

// out[j] = reduction of x[i * stride + j] over i in [0, length), for j in [0, columns).
struct ReduceArgs {
  ReduceKind kind = ReduceKind::kSum;
  const float* x = nullptr;
  float* out = nullptr;
  int64_t length = 0, stride = 1, columns = 1;  // columns <= kReduceBlock
};
inline constexpr int64_t kReduceBlock = 64;

// One row of windows over an image [height, width, channels].
struct PoolArgs {
  Window window;
  int64_t height = 0, width = 0, channels = 0, columns = 0;
  int64_t row = 0;
  bool average = false, include_pad = false;
  const float* x = nullptr;  // the image, out [columns][channels] ...
  float* out = nullptr;
  const uint8_t* codes = nullptr;  // ... or codes of it (largest only)
  uint8_t* code_out = nullptr;
};

struct FloatsKernel {
  std::string_view name;
  Isa isa;
  void (*binary)(const BroadcastArgs&) noexcept;
  void (*reduce)(const ReduceArgs&) noexcept;      // columns side by side
  void (*reduce_row)(const ReduceArgs&) noexcept;  // one column of stride 1
  void (*pool)(const PoolArgs&) noexcept;
};

std::span<const FloatsKernel* const> floats_kernels();

// Rows, each defined where its instruction set exists.
extern const FloatsKernel floats_scalar, floats_avx2, floats_avx512vnni;

}  // namespace repquant::runtime
