#pragma once
// The portable code of the family: compiled as it is for the scalar row, and once more by every row
// file that has nothing better, whose REPQUANT_ROW sets the target and inlines all below it.
#include <cstring>

#include "repquant/runtime/kernels/movement/movement.h"

namespace repquant::runtime {
namespace {

template <class Element>
void copy_line(const std::byte* from, std::byte* to, int64_t count, int64_t stride) {
  if (stride == 1) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(Element));
    return;
  }
  // The caller's tensors may be unaligned: elements move by memcpy.
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(to + i * sizeof(Element), from + i * stride * int64_t{sizeof(Element)},
                sizeof(Element));
  }
}

// A few planes into neighbouring elements: the channels of an image.
template <class Element, int kPlanes>
void interleave(const std::byte* from, std::byte* to, int64_t count, int64_t plane) {
  const auto* __restrict in = reinterpret_cast<const unsigned char*>(from);
  auto* __restrict out = reinterpret_cast<unsigned char*>(to);
  constexpr int64_t size = sizeof(Element);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t p = 0; p < kPlanes; ++p) {
      for (int64_t b = 0; b < size; ++b)
        out[(i * kPlanes + p) * size + b] = in[(p * plane + i) * size + b];
    }
  }
}

template <class Element>
bool copy_planes(const CopyArgs& args, const std::byte* from, std::byte* to) {
  const int64_t *sizes = args.sizes + args.rank - 2, *strides = args.strides + args.rank - 2;
  if (strides[0] != 1) return false;
  if (sizes[1] == 2) return interleave<Element, 2>(from, to, sizes[0], strides[1]), true;
  if (sizes[1] == 3) return interleave<Element, 3>(from, to, sizes[0], strides[1]), true;
  if (sizes[1] == 4) return interleave<Element, 4>(from, to, sizes[0], strides[1]), true;
  return false;
}

template <class Element>
std::byte* copy_block(const CopyArgs& args, int dim, const std::byte* from, std::byte* to) {
  const int64_t count = args.sizes[dim], stride = args.strides[dim];
  if (dim + 1 == args.rank) {
    copy_line<Element>(from, to, count, stride);
    return to + count * int64_t{sizeof(Element)};
  }
  if (dim + 2 == args.rank && copy_planes<Element>(args, from, to))
    return to + count * args.sizes[dim + 1] * int64_t{sizeof(Element)};
  for (int64_t i = 0; i < count; ++i) {
    to = copy_block<Element>(args, dim + 1, from + i * stride * int64_t{sizeof(Element)}, to);
  }
  return to;
}

[[maybe_unused]] REPQUANT_ROW void copy(const CopyArgs& args) noexcept {
  if (args.element_bytes == 1) {
    copy_block<uint8_t>(args, 0, args.from, args.to);
  } else {
    copy_block<float>(args, 0, args.from, args.to);
  }
}

}  // namespace

}  // namespace repquant::runtime
