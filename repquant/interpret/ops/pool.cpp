// Pooling over one to three spatial axes. Padding is made explicit first, so that every auto_pad,
// asymmetric pad and ceil_mode is one law; the pooling itself then runs without pads.
#include <cmath>
#include <limits>

#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

struct Plan {
  Window window;
  std::vector<int64_t> in, out;
  std::vector<int64_t> reach;   // end padding (or, negative, cut) that the last window needs
};

// A window that would start in the end padding does not count (ceil_mode).
Plan plan_of(const Node& node, const at::Tensor& x) {
  Plan p;
  p.window = window_of(node, x, node.attrs.integers("kernel_shape"));
  const Window& w = p.window;
  const bool ceil = node.attrs.integer("ceil_mode", 0) != 0;
  for (size_t i = 0; i < w.kernel.size(); ++i) {
    const int64_t n = x.size(static_cast<int64_t>(i) + 2);
    const int64_t extent = (w.kernel[i] - 1) * w.dilations[i] + 1;
    const int64_t free = n + w.pad_begin[i] + w.pad_end[i] - extent;
    if (free < 0) malformed(node, "the kernel exceeds the padded input " + to_string(x.sizes()));
    int64_t out = free / w.strides[i] + 1;
    if (ceil) {
      out = (free + w.strides[i] - 1) / w.strides[i] + 1;
      if ((out - 1) * w.strides[i] >= n + w.pad_begin[i]) --out;
    }
    p.in.push_back(n);
    p.out.push_back(out);
    p.reach.push_back((out - 1) * w.strides[i] + extent - n - w.pad_begin[i]);
  }
  return p;
}

// One spatial axis becomes two, the first of size 1: ATen's kernels have two or three.
at::Tensor two_dimensional(const at::Tensor& x) { return x.dim() == 3 ? x.unsqueeze(2) : x; }

std::vector<int64_t> two(std::vector<int64_t> sizes) {
  if (sizes.size() == 1) sizes.insert(sizes.begin(), 1);
  return sizes;
}

at::Tensor padded_floats(const Plan& p, const at::Tensor& x, double value) {
  const at::Tensor floats = at::isFloatingType(x.scalar_type()) ? x : x.to(at::kDouble);
  return at::constant_pad_nd(floats, pad_argument(p.window.pad_begin, p.reach), value);
}

// Indices within a padded plane [N, C, ..] -> flat indices of the unpadded tensor, row- or
// column-major inside a plane.
at::Tensor original_indices(const Plan& p, const at::Tensor& x, at::Tensor index,
                            bool column_major) {
  const size_t rank = p.in.size();
  at::Tensor plane = at::zeros_like(index);
  int64_t row_stride = 1;
  std::vector<int64_t> column_stride(rank, 1);
  for (size_t i = 1; i < rank; ++i) column_stride[i] = column_stride[i - 1] * p.in[i - 1];
  for (size_t i = rank; i-- > 0;) {
    const int64_t padded = p.in[i] + p.window.pad_begin[i] + p.reach[i];
    const at::Tensor position = at::remainder(index, padded) - p.window.pad_begin[i];
    index = at::floor_divide(index, padded);
    plane = plane + position * (column_major ? column_stride[i] : row_stride);
    row_stride *= p.in[i];
  }
  std::vector<int64_t> shape(static_cast<size_t>(index.dim()), 1);
  shape[0] = x.size(0);
  shape[1] = x.size(1);
  return plane + at::arange(x.size(0) * x.size(1), at::kLong).reshape(shape) * row_stride;
}

Tensors max_pool(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const Plan p = plan_of(node, x);
  const Window& w = p.window;
  const size_t rank = w.kernel.size();
  if (rank > 3) refuse(node, "more than three spatial axes");
  const at::Tensor wide = padded_floats(p, x, -std::numeric_limits<double>::infinity());
  at::Tensor y, index;
  if (rank == 3) {
    std::tie(y, index) = at::max_pool3d_with_indices(wide, w.kernel, w.strides, {0}, w.dilations);
  } else {
    std::tie(y, index) = at::max_pool2d_with_indices(two_dimensional(wide), two(w.kernel),
                                                     two(w.strides), {0}, two(w.dilations));
    if (rank == 1) {
      y = y.squeeze(2);
      index = index.squeeze(2);
    }
  }
  y = y.to(x.scalar_type());
  if (node.outputs.size() < 2) return {y};
  return {y, original_indices(p, x, index, node.attrs.integer("storage_order", 0) != 0)};
}

// Sums over the windows of an already padded tensor.
at::Tensor window_sums(const Node& node, const Window& w, const at::Tensor& x) {
  const size_t rank = w.kernel.size();
  const bool dilated = std::ranges::any_of(w.dilations, [](int64_t d) { return d != 1; });
  if (dilated || rank > 3) {
    if (rank > 3) refuse(node, "more than three spatial axes");
    const at::Tensor planes = x.flatten(0, 1).unsqueeze(1);
    std::vector<int64_t> shape = {1, 1};
    shape.insert(shape.end(), w.kernel.begin(), w.kernel.end());
    const std::vector<int64_t> none(rank, 0);
    const at::Tensor sums = at::convolution(planes, at::ones(shape, x.options()), {}, w.strides,
                                            none, w.dilations, false, none, 1);
    return sums.squeeze(1).unflatten(0, {x.size(0), x.size(1)});
  }
  if (rank == 3) return at::avg_pool3d(x, w.kernel, w.strides, 0, false, true, 1);
  const at::Tensor sums =
      at::avg_pool2d(two_dimensional(x), two(w.kernel), two(w.strides), 0, false, true, 1);
  return rank == 1 ? sums.squeeze(2) : sums;
}

// How many elements each window averages: those of the input and, on request, of its padding, but
// never of what ceil_mode adds.
at::Tensor window_counts(const Node& node, const Plan& p, const at::Tensor& x) {
  std::vector<int64_t> shape = {1, 1};
  shape.insert(shape.end(), p.in.begin(), p.in.end());
  at::Tensor ones = at::ones(shape, x.options().requires_grad(false));
  std::vector<int64_t> begin = p.window.pad_begin, end = p.reach;
  if (node.attrs.integer("count_include_pad", 0) != 0) {
    ones = at::constant_pad_nd(ones, pad_argument(begin, p.window.pad_end), 1);
    for (size_t i = 0; i < end.size(); ++i) {
      end[i] -= p.window.pad_end[i];
      begin[i] = 0;
    }
  }
  return window_sums(node, p.window, at::constant_pad_nd(ones, pad_argument(begin, end)));
}

Tensors average_pool(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const Plan p = plan_of(node, x);
  const at::Tensor wide = padded_floats(p, x, 0.0);
  return {(window_sums(node, p.window, wide) / window_counts(node, p, wide)).to(x.scalar_type())};
}

Tensors lp_pool(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const Plan p = plan_of(node, x);
  const auto power = static_cast<double>(node.attrs.integer("p", 2));
  const at::Tensor wide = padded_floats(p, x, 0.0);
  return {at::pow(window_sums(node, p.window, at::pow(at::abs(wide), power)), 1.0 / power)};
}

std::vector<int64_t> spatial_axes(const Node& node, const at::Tensor& x) {
  if (x.dim() < 3) malformed(node, "expected rank 3 or more, got " + to_string(x.sizes()));
  std::vector<int64_t> axes;
  for (int64_t i = 2; i < x.dim(); ++i) axes.push_back(i);
  return axes;
}

Tensors global_average_pool(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  return {x.mean(spatial_axes(node, x), true)};
}

Tensors global_max_pool(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  return {x.amax(spatial_axes(node, x), true)};
}

}  // namespace

OpFunction pool_op(OpKind op) {
  switch (op) {
    case OpKind::kAveragePool: return average_pool;
    case OpKind::kMaxPool: return max_pool;
    case OpKind::kLpPool: return lp_pool;
    case OpKind::kGlobalAveragePool: return global_average_pool;
    case OpKind::kGlobalMaxPool: return global_max_pool;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
