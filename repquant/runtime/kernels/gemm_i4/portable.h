#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file, whose REPQUANT_ROW sets the target and inlines all below it.
#include <algorithm>
#include <cstring>
#include <vector>

#include "repquant/runtime/kernels/gemm_i4/gemm_i4.h"
#include "repquant/runtime/kernels/gemm_i8/rows.h"

namespace repquant::runtime {
namespace {

constexpr int64_t kVector = 64;  // codes of a vector

inline int64_t group_vectors(int bits) { return bits == 4 ? 2 : bits == 2 ? 4 : 8; }
inline int64_t group_bytes(int bits) { return kVector * group_vectors(bits) * bits / 8; }

inline GemmI8Shape panel_shape(const GemmI8Kernel& wide, const GemmI8Shape& shape, int64_t first) {
  GemmI8Shape panel = shape;
  panel.n = std::min(wide.panel, shape.n - first);
  return panel;
}

inline int64_t groups_of(const GemmI8Kernel& wide, const GemmI8Shape& panel, int bits) {
  const int64_t codes = static_cast<int64_t>(wide.packed_bytes(panel)) / wide.weight_bytes;
  const int64_t group = kVector * group_vectors(bits);
  return (codes + group - 1) / group;
}

template <const GemmI8Kernel& kWide> size_t packed_bytes(const GemmI8Shape& shape, int bits) {
  int64_t bytes = 0;
  for (int64_t first = 0; first < shape.n; first += kWide.panel)
    bytes += groups_of(kWide, panel_shape(kWide, shape, first), bits) * group_bytes(bits);
  return static_cast<size_t>(bytes);
}

// Codes of one group, each plus 2^(bits-1), to bytes.
inline void pack_group(const uint8_t* codes, int bits, uint8_t* to) {
  std::memset(to, 0, static_cast<size_t>(group_bytes(bits)));
  const int low = bits == 3 ? 2 : bits;  // bits of the first plane
  const int64_t each = 8 / low;          // vectors that share its bytes
  for (int64_t v = 0; v < group_vectors(bits); ++v) {
    for (int64_t i = 0; i < kVector; ++i) {
      const int code = codes[v * kVector + i];
      to[v / each * kVector + i] |=
          static_cast<uint8_t>((code & ((1 << low) - 1)) << (low * static_cast<int>(v % each)));
      if (bits == 3) to[2 * kVector + i] |= static_cast<uint8_t>(code >> 2 << v);
    }
  }
}

template <const GemmI8Kernel& kWide>
void pack(const GemmI8Shape& shape, int bits, const int8_t* codes, void* packed) {
  auto* to = static_cast<uint8_t*>(packed);
  const int64_t group = kVector * group_vectors(bits);
  for (int64_t first = 0; first < shape.n; first += kWide.panel) {
    const GemmI8Shape panel = panel_shape(kWide, shape, first);
    const int64_t groups = groups_of(kWide, panel, bits);
    std::vector<std::byte> wide(kWide.packed_bytes(panel));
    kWide.pack(panel, codes + first * shape.k, wide.data());
    std::vector<uint8_t> raised(static_cast<size_t>(groups * group),
                                static_cast<uint8_t>(1 << (bits - 1)));
    const auto count = static_cast<int64_t>(wide.size()) / kWide.weight_bytes;
    for (int64_t i = 0; i < count; ++i) {
      int16_t code = 0;
      if (kWide.weight_bytes == 1) code = static_cast<int8_t>(wide[static_cast<size_t>(i)]);
      else std::memcpy(&code, wide.data() + 2 * i, 2);
      raised[static_cast<size_t>(i)] = static_cast<uint8_t>(code + (1 << (bits - 1)));
    }
    for (int64_t g = 0; g < groups; ++g, to += group_bytes(bits))
      pack_group(raised.data() + g * group, bits, to);
  }
}

template <int kBits, class Weight>
inline void unpack_groups(const uint8_t* from, int64_t groups, Weight* to) {
  constexpr int kLow = kBits == 3 ? 2 : kBits, kEach = 8 / kLow;
  constexpr int kVectors = kBits == 4 ? 2 : kBits == 2 ? 4 : 8, kRaised = 1 << (kBits - 1);
  for (int64_t g = 0; g < groups; ++g, from += kVector * kVectors * kBits / 8) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v, to += kVector) {
      const uint8_t* plane = from + v / kEach * kVector;
      for (int64_t i = 0; i < kVector; ++i) {
        int code = plane[i] >> (kLow * (v % kEach)) & ((1 << kLow) - 1);
        if constexpr (kBits == 3) code |= (from[2 * kVector + i] >> v & 1) << 2;
        to[i] = static_cast<Weight>(code - kRaised);
      }
    }
  }
}

template <class Weight>
[[maybe_unused]] REPQUANT_ROW void unpack(const uint8_t* from, int bits, int64_t groups,
                                          Weight* to) noexcept {
  if (bits == 4) unpack_groups<4>(from, groups, to);
  else if (bits == 3) unpack_groups<3>(from, groups, to);
  else unpack_groups<2>(from, groups, to);
}

// The largest panel with whole groups, then what the wide row and sums need.
inline size_t panel_bytes(const GemmI8Kernel& wide, const GemmI8Shape& shape) {
  const size_t group = static_cast<size_t>(kVector * 8 * wide.weight_bytes);
  return (wide.packed_bytes(panel_shape(wide, shape, 0)) + group - 1) / group * group;
}

template <const GemmI8Kernel& kWide> size_t scratch_bytes(const GemmI8Shape& shape) {
  return panel_bytes(kWide, shape) + sums_bytes() + kWide.scratch_bytes(shape);
}

// The columns of one panel as a product of their own.
inline GemmI8Args panel_args(const GemmI8Args& args, const GemmI8Shape& shape, int64_t first) {
  GemmI8Args panel = args;
  panel.shape = shape;
  panel.c += first;
  if (panel.zw != nullptr) panel.zw += first;
  if (panel.codes != nullptr) {
    panel.codes += first, panel.m += first;
  } else {
    panel.out += first, panel.s += first, panel.b += first;
    if (panel.residual != nullptr) panel.residual += first;
  }
  return panel;
}

template <const GemmI8Kernel& kWide, class Weight, class Unpack>
inline void run_panels(const GemmI8Args& args, int bits, Unpack&& unpack_panel) {
  const size_t own = panel_bytes(kWide, args.shape);
  auto* weights = reinterpret_cast<Weight*>(args.scratch);
  GemmI8Args rest = args;
  rest.scratch = args.scratch + own;
  for_row_blocks(kWide, rest, [&](const GemmI8Args& piece) {
    const auto* from = static_cast<const uint8_t*>(args.weights);
    for (int64_t first = 0; first < piece.shape.n; first += kWide.panel) {
      const GemmI8Shape shape = panel_shape(kWide, piece.shape, first);
      const int64_t groups = groups_of(kWide, shape, bits);
      GemmI8Args panel = panel_args(piece, shape, first);
      panel.scratch = rest.scratch + sums_bytes();
      panel.weights = weights;
      unpack_panel(from, bits, groups, weights);
      kWide.run(panel);
      from += groups * group_bytes(bits);
    }
  });
}

template <const GemmI8Kernel& kWide, class Weight>
[[maybe_unused]] void run(const GemmI8Args& args, int bits) noexcept {
  run_panels<kWide, Weight>(args, bits, unpack<Weight>);
}

}  // namespace
}  // namespace repquant::runtime
