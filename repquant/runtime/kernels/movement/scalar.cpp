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

template <class Element>
std::byte* copy_block(const CopyArgs& args, int dim, const std::byte* from, std::byte* to) {
  const int64_t count = args.sizes[dim], stride = args.strides[dim];
  if (dim + 1 == args.rank) {
    copy_line<Element>(from, to, count, stride);
    return to + count * int64_t{sizeof(Element)};
  }
  for (int64_t i = 0; i < count; ++i) {
    to = copy_block<Element>(args, dim + 1, from + i * stride * int64_t{sizeof(Element)}, to);
  }
  return to;
}

void copy(const CopyArgs& args) noexcept {
  if (args.element_bytes == 1) {
    copy_block<uint8_t>(args, 0, args.from, args.to);
  } else {
    copy_block<float>(args, 0, args.from, args.to);
  }
}

}  // namespace

const MovementKernel movement_scalar{"movement/scalar", Isa::kScalar, copy};

}  // namespace repquant::runtime
