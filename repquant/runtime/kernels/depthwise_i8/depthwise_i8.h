#pragma once
// depthwise_i8: one window of codes a channel times its weights, int32 exact (core/plan.h, step
// `depthwise`):
//   t = c[n] + za sum w + sum over the window inside the image of (a - za) (w - zw)
// which is what the law says when codes outside the image are za.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/core/plan_window.h"
#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

struct DepthwiseI8Args {
  Window window;
  int64_t height = 0, width = 0, channels = 0;  // of the image
  int64_t columns = 0;                          // of the output
  int64_t first_row = 0, rows = 0;              // output rows [first_row, first_row + rows)
  const uint8_t* image = nullptr;               // one item, [height][width][channels]
  const int8_t* w = nullptr;          // [channels][taps], read by `pack` alone, as the next two
  const int32_t* c = nullptr;         // [channels]
  const int32_t* zw = nullptr;        // [channels], or nullptr: all zero
  const std::byte* packed = nullptr;  // as written by the row's `pack`, 64-byte aligned

  int32_t za = 0;
  uint8_t* codes = nullptr;  // one item, [..][columns][channels], codes out ...
  const float* m = nullptr;
  int32_t zero = 0, lo = 0, hi = 255;
  float* out = nullptr;  // ... or f32 out
  const float *s = nullptr, *b = nullptr;
  std::byte* scratch = nullptr;  // 64-byte aligned, scratch_bytes long
};

struct DepthwiseI8Kernel {
  std::string_view name;
  Isa isa;
  // Of arguments that are the same for every call: all but images, outputs, rows, packed, scratch.
  size_t (*packed_bytes)(const DepthwiseI8Args&);
  void (*pack)(const DepthwiseI8Args&, std::byte* packed);
  size_t (*scratch_bytes)(const DepthwiseI8Args&);

  void (*run)(const DepthwiseI8Args&) noexcept;
};

std::span<const DepthwiseI8Kernel* const> depthwise_i8_kernels();

// Rows, each defined where its instruction set exists.
extern const DepthwiseI8Kernel depthwise_i8_scalar, depthwise_i8_avx2, depthwise_i8_avxvnni,
    depthwise_i8_avx512vnni;

}  // namespace repquant::runtime
