// Convolution and its transpose, one to three spatial axes.
#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

std::vector<int64_t> spatial(const at::Tensor& w) {
  return {w.sizes().begin() + std::min<int64_t>(2, w.dim()), w.sizes().end()};
}

Tensors conv(const Node& node, Inputs in) {
  at::Tensor x = required(node, in, 0);
  const at::Tensor& w = required(node, in, 1);
  Window window = window_of(node, x, spatial(w));
  if (window.pad_begin != window.pad_end) {
    x = at::constant_pad_nd(x, pad_argument(window.pad_begin, window.pad_end));
    window.pad_begin.assign(window.kernel.size(), 0);
  }
  const std::vector<int64_t> none(window.kernel.size(), 0);
  return {at::convolution(x, w, optional(in, 2), window.strides, window.pad_begin, window.dilations,
                          false, none, node.attrs.integer("group", 1))};
}

// Pads that make the output `wanted`: the larger half goes to the end for SAME_UPPER, else to the
// begin. What is missing (a negative total) is added at the end.
void pads_for(Window& w, const std::vector<int64_t>& full, const std::vector<int64_t>& wanted,
              bool upper) {
  for (size_t i = 0; i < full.size(); ++i) {
    const int64_t total = full[i] - wanted[i], small = std::max<int64_t>(0, total) / 2;
    w.pad_begin[i] = upper || total < 0 ? small : total - small;
    w.pad_end[i] = total - w.pad_begin[i];
  }
}

// The full product is computed without pads and then cut (or, for output_padding, extended).
Tensors conv_transpose(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const at::Tensor& w = required(node, in, 1);
  const std::string auto_pad = node.attrs.text("auto_pad", "NOTSET");
  Window window = window_of(node, x, spatial(w));
  const size_t rank = window.kernel.size();
  const auto extra = node.attrs.integers("output_padding", std::vector<int64_t>(rank, 0));
  auto wanted = node.attrs.integers("output_shape");
  if (wanted.size() == rank + 2) wanted.erase(wanted.begin(), wanted.begin() + 2);
  if (extra.size() != rank || (!wanted.empty() && wanted.size() != rank)) {
    malformed(node, "output_padding or output_shape do not fit " + std::to_string(rank) + " axes");
  }
  std::vector<int64_t> full(rank), same(rank);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t size = x.size(static_cast<int64_t>(i) + 2);
    full[i] = (size - 1) * window.strides[i] + (window.kernel[i] - 1) * window.dilations[i] + 1 +
              extra[i];
    same[i] = size * window.strides[i];
  }
  const bool is_same = auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER";
  if (!wanted.empty()) pads_for(window, full, wanted, auto_pad == "SAME_UPPER");
  else if (is_same) pads_for(window, full, same, auto_pad == "SAME_UPPER");
  const std::vector<int64_t> none(rank, 0);
  at::Tensor y = at::convolution(x, w, {}, window.strides, none, window.dilations, true, none,
                                 node.attrs.integer("group", 1));
  std::vector<int64_t> begin(rank), end(rank);
  for (size_t i = 0; i < rank; ++i) {
    begin[i] = -window.pad_begin[i];
    end[i] = extra[i] - window.pad_end[i];
  }
  y = at::constant_pad_nd(y, pad_argument(begin, end));
  if (present(in, 2)) {
    std::vector<int64_t> shape(rank + 2, 1);
    shape[1] = in[2].numel();
    y = y + in[2].reshape(shape);
  }
  return {y};
}

}  // namespace

OpFunction convolution_op(OpKind op) {
  switch (op) {
    case OpKind::kConv: return conv;
    case OpKind::kConvTranspose: return conv_transpose;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
