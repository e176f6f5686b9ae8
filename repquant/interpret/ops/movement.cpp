// Shapes and movement of elements by position alone.
#include <algorithm>
#include <numeric>

#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

Tensors concat(const Node& node, Inputs in) {
  const int64_t rank = required(node, in, 0).dim();
  return {at::cat(at::TensorList(in.data(), in.size()),
                  normal_axis(node, node.attrs.integer("axis", 0), rank))};
}

Tensors constant(const Node& node, Inputs) {
  const Attrs& attrs = node.attrs;
  if (const Tensor* tensor = attrs.tensor("value")) return {to_aten(*tensor)};
  if (attrs.has("value_float")) return {at::scalar_tensor(attrs.real("value_float", 0.0F))};
  if (attrs.has("value_int")) return {at::scalar_tensor(attrs.integer("value_int", 0), at::kLong)};
  if (attrs.has("value_floats")) return {torch::tensor(attrs.reals("value_floats"))};
  if (attrs.has("value_ints")) return {torch::tensor(attrs.integers("value_ints"), at::kLong)};
  refuse(node, "a constant of text or sparse values");
}

Tensors constant_of_shape(const Node& node, Inputs in) {
  const auto shape = to_ints(required(node, in, 0));
  const Tensor* value = node.attrs.tensor("value");
  if (value == nullptr) return {at::zeros(shape)};
  return {to_aten(*value).reshape({}).expand(shape).clone(at::MemoryFormat::Contiguous)};
}

Tensors expand(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  return {x.expand(at::infer_size(x.sizes(), to_ints(required(node, in, 1))))};
}

Tensors eye_like(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const auto type = node.attrs.has("dtype") ? dtype_of_onnx(node, node.attrs.integer("dtype", 1))
                                            : x.scalar_type();
  at::Tensor result = at::zeros(x.sizes(), x.options().dtype(type));
  const int64_t k = node.attrs.integer("k", 0);
  if (k < x.size(1) && -k < x.size(0)) result.diagonal(k).fill_(1);
  return {result};
}

Tensors flatten(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  int64_t axis = node.attrs.integer("axis", 1);
  if (axis < 0) axis += x.dim();
  if (axis < 0 || axis > x.dim())
    malformed(node, "axis is outside of rank " + std::to_string(x.dim()));
  const auto lead = x.sizes().slice(0, static_cast<size_t>(axis));
  const int64_t rows = std::accumulate(lead.begin(), lead.end(), int64_t{1}, std::multiplies<>());
  const auto tail = x.sizes().slice(static_cast<size_t>(axis));
  const int64_t columns =
      std::accumulate(tail.begin(), tail.end(), int64_t{1}, std::multiplies<>());
  return {x.reshape({rows, columns})};
}

Tensors reshape(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  auto shape = ints_of(node, in, 1, "shape");
  if (node.attrs.integer("allowzero", 0) == 0) {
    for (size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] != 0) continue;
      if (static_cast<int64_t>(i) >= x.dim())
        malformed(node, "a zero beyond the rank of the input");
      shape[i] = x.size(static_cast<int64_t>(i));
    }
  }
  return {x.reshape(shape)};
}

Tensors shape(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const auto clamped = [&](int64_t i) {
    return std::clamp(i < 0 ? i + x.dim() : i, int64_t{0}, x.dim());
  };
  const int64_t start = clamped(node.attrs.integer("start", 0));
  const int64_t end = std::max(start, clamped(node.attrs.integer("end", x.dim())));
  const auto part = x.sizes().slice(static_cast<size_t>(start), static_cast<size_t>(end - start));
  return {torch::tensor(part, at::kLong)};
}

Tensors size(const Node& node, Inputs in) {
  return {at::scalar_tensor(required(node, in, 0).numel(), at::kLong)};
}

at::Tensor slice_axis(const at::Tensor& x, int64_t axis, int64_t start, int64_t end, int64_t step) {
  const int64_t n = x.size(axis);
  if (start < 0) start += n;
  if (end < 0) end += n;
  if (step > 0) {
    start = std::clamp(start, int64_t{0}, n);
    end = std::clamp(end, start, n);
    return x.slice(axis, start, end, step);
  }
  start = std::clamp(start, int64_t{-1}, n - 1);
  end = std::clamp(end, int64_t{-1}, start);
  const auto options = x.options().dtype(at::kLong).requires_grad(false);
  return x.index_select(axis, at::arange(start, end, step, options));
}

Tensors slice(const Node& node, Inputs in) {
  at::Tensor x = required(node, in, 0);
  const auto starts = ints_of(node, in, 1, "starts"), ends = ints_of(node, in, 2, "ends");
  auto axes = ints_of(node, in, 3, "axes"), steps = ints_of(node, in, 4, "steps");
  if (axes.empty()) {
    axes.resize(starts.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() ||
      steps.size() != starts.size()) {
    malformed(node, "starts, ends, axes and steps differ in length");
  }
  for (size_t i = 0; i < starts.size(); ++i) {
    if (steps[i] == 0) malformed(node, "a step of zero");
    x = slice_axis(x, normal_axis(node, axes[i], x.dim()), starts[i], ends[i], steps[i]);
  }
  return {x};
}

Tensors split(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t axis = normal_axis(node, node.attrs.integer("axis", 0), x.dim());
  const auto sizes = ints_of(node, in, 1, "split");
  if (!sizes.empty()) return x.split_with_sizes(sizes, axis);
  const int64_t count =
      node.attrs.integer("num_outputs", static_cast<int64_t>(node.outputs.size()));
  if (count < 1) malformed(node, "expected at least one output");
  const int64_t part = (x.size(axis) + count - 1) / count;
  Tensors outputs;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = std::min(i * part, x.size(axis));
    outputs.push_back(x.slice(axis, begin, std::min(begin + part, x.size(axis))));
  }
  return outputs;
}

Tensors squeeze(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const auto axes = normal_axes(node, ints_of(node, in, 1, "axes"), x.dim());
  if (axes.empty()) return {x.squeeze()};
  for (const int64_t axis : axes) {
    if (x.dim() > 0 && x.size(axis) != 1)
      malformed(node, "expected size 1 at axis " + std::to_string(axis));
  }
  return {x.squeeze(axes)};
}

Tensors unsqueeze(const Node& node, Inputs in) {
  at::Tensor x = required(node, in, 0);
  const auto given = ints_of(node, in, 1, "axes");
  auto axes = normal_axes(node, given, x.dim() + static_cast<int64_t>(given.size()));
  std::ranges::sort(axes);
  for (const int64_t axis : axes) x = x.unsqueeze(axis);
  return {x};
}

Tensors tile(const Node& node, Inputs in) {
  return {required(node, in, 0).repeat(to_ints(required(node, in, 1)))};
}

Tensors transpose(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  auto order = node.attrs.integers("perm");
  if (order.empty()) {
    order.resize(static_cast<size_t>(x.dim()));
    std::iota(order.rbegin(), order.rend(), 0);
  }
  return {x.permute(order)};
}

Tensors trilu(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t k = present(in, 1) ? in[1].item<int64_t>() : 0;
  return {node.attrs.integer("upper", 1) != 0 ? x.triu(k) : x.tril(k)};
}

// Position in the input of every padded position along one axis; reflect, edge or wrap.
std::vector<int64_t> padded_positions(const Node& node, const std::string& mode, int64_t n,
                                      int64_t begin, int64_t end) {
  std::vector<int64_t> positions;
  if (n == 0) malformed(node, "cannot pad an empty axis by " + mode);
  for (int64_t i = -begin; i < n + end; ++i) {
    int64_t at = std::clamp(i, int64_t{0}, n - 1);
    if (mode == "wrap") {
      at = ((i % n) + n) % n;
    } else if (mode == "reflect") {
      const int64_t period = std::max<int64_t>(1, 2 * (n - 1));
      at = ((i % period) + period) % period;
      at = std::min(at, period - at);
      if (n == 1) at = 0;
    }
    positions.push_back(at);
  }
  return positions;
}

Tensors pad(const Node& node, Inputs in) {
  at::Tensor x = required(node, in, 0);
  const auto pads = ints_of(node, in, 1, "pads");
  auto axes = normal_axes(node, ints_of(node, in, 3, "axes"), x.dim());
  if (axes.empty()) {
    axes.resize(static_cast<size_t>(x.dim()));
    std::iota(axes.begin(), axes.end(), 0);
  }
  if (pads.size() != 2 * axes.size()) malformed(node, "pads do not fit the axes");
  const std::string mode = node.attrs.text("mode", "constant");
  if (mode == "constant") {
    std::vector<int64_t> begin(static_cast<size_t>(x.dim()), 0), end = begin;
    for (size_t i = 0; i < axes.size(); ++i) {
      begin[static_cast<size_t>(axes[i])] = pads[i];
      end[static_cast<size_t>(axes[i])] = pads[i + axes.size()];
    }
    const at::Scalar value =
        present(in, 2) ? in[2].item() : at::Scalar(node.attrs.real("value", 0.0F));
    return {at::constant_pad_nd(x, pad_argument(begin, end), value)};
  }
  if (mode != "reflect" && mode != "edge" && mode != "wrap")
    malformed(node, "unknown mode \"" + mode + "\"");
  for (size_t i = 0; i < axes.size(); ++i) {
    if (pads[i] == 0 && pads[i + axes.size()] == 0) continue;
    const auto positions =
        padded_positions(node, mode, x.size(axes[i]), pads[i], pads[i + axes.size()]);
    x = x.index_select(axes[i],
                       torch::tensor(positions, x.options().dtype(at::kLong).requires_grad(false)));
  }
  return {x};
}

Tensors depth_to_space(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t b = node.attrs.integer("blocksize", 1);
  if (x.dim() != 4 || b < 1 || x.size(1) % (b * b) != 0)
    malformed(node, "channels do not divide by blocks");
  const int64_t n = x.size(0), c = x.size(1) / (b * b), h = x.size(2), w = x.size(3);
  if (node.attrs.text("mode", "DCR") == "CRD") {
    return {
        x.reshape({n, c, b, b, h, w}).permute({0, 1, 4, 2, 5, 3}).reshape({n, c, h * b, w * b})};
  }
  return {x.reshape({n, b, b, c, h, w}).permute({0, 3, 4, 1, 5, 2}).reshape({n, c, h * b, w * b})};
}

Tensors space_to_depth(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const int64_t b = node.attrs.integer("blocksize", 1);
  if (x.dim() != 4 || b < 1 || x.size(2) % b != 0 || x.size(3) % b != 0) {
    malformed(node, "sizes do not divide by blocks");
  }
  const int64_t n = x.size(0), c = x.size(1), h = x.size(2) / b, w = x.size(3) / b;
  return {x.reshape({n, c, h, b, w, b}).permute({0, 3, 5, 1, 2, 4}).reshape({n, c * b * b, h, w})};
}

// Outside of training, dropout is the identity and keeps everything.
Tensors dropout(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const bool training = present(in, 2) && in[2].item<bool>();
  const double ratio = present(in, 1) ? in[1].item<double>() : 0.5;
  if (training && ratio != 0) refuse(node, "dropout in training mode is random");
  return {x, at::ones_like(x, x.options().dtype(at::kBool))};
}

}  // namespace

OpFunction movement_op(OpKind op) {
  switch (op) {
    case OpKind::kConcat: return concat;
    case OpKind::kConstant: return constant;
    case OpKind::kConstantOfShape: return constant_of_shape;
    case OpKind::kDepthToSpace: return depth_to_space;
    case OpKind::kDropout: return dropout;
    case OpKind::kExpand: return expand;
    case OpKind::kEyeLike: return eye_like;
    case OpKind::kFlatten: return flatten;
    case OpKind::kPad: return pad;
    case OpKind::kReshape: return reshape;
    case OpKind::kShape: return shape;
    case OpKind::kSize: return size;
    case OpKind::kSlice: return slice;
    case OpKind::kSpaceToDepth: return space_to_depth;
    case OpKind::kSplit: return split;
    case OpKind::kSqueeze: return squeeze;
    case OpKind::kTile: return tile;
    case OpKind::kTranspose: return transpose;
    case OpKind::kTrilu: return trilu;
    case OpKind::kUnsqueeze: return unsqueeze;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
