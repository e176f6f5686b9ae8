#pragma once
// movement: strided copies behind transpose, slice and prepend.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "repquant/runtime/kernels/isa.h"

namespace repquant::runtime {

inline constexpr int kMaxCopyRank = 8;

// Writes `sizes` (row-major, contiguous) of the elements at from + sum index[d] * strides[d].
// Strides are in elements; element_bytes is 1 or 4.
struct CopyArgs {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  int element_bytes = 4;
  int rank = 0;
  int64_t sizes[kMaxCopyRank] = {};
  int64_t strides[kMaxCopyRank] = {};
};

struct MovementKernel {
  std::string_view name;
  Isa isa;
  void (*copy)(const CopyArgs&) noexcept;
};

std::span<const MovementKernel* const> movement_kernels();

// Rows, each defined where its instruction set exists.
extern const MovementKernel movement_scalar, movement_avx2;

}  // namespace repquant::runtime
