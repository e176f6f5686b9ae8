#include <algorithm>
#include <cmath>

#include "repquant/graph/ops/shape_functions.h"

namespace repquant::shapes {
namespace {

// Attributes of a sliding window over `axes` spatial dimensions, defaults filled in and checked.
struct Window {
  std::vector<int64_t> kernel, strides, dilations, pads;
  std::string auto_pad;
};

std::vector<int64_t> list(const InferContext& c, const char* name, size_t count, int64_t fallback,
                          int64_t low) {
  auto values = c.node().attrs.integers(name);
  if (values.empty()) values.assign(count, fallback);
  const bool good = values.size() == count &&
                    std::all_of(values.begin(), values.end(), [&](int64_t v) { return v >= low; });
  if (!good)
    c.fail("attribute \"" + std::string(name) + "\" with " + std::to_string(count) +
           " values of at least " + std::to_string(low));
  return values;
}

Window window(const InferContext& c, std::vector<int64_t> kernel) {
  Window w;
  const size_t axes = kernel.size();
  w.kernel = std::move(kernel);
  w.strides = list(c, "strides", axes, 1, 1);
  w.dilations = list(c, "dilations", axes, 1, 1);
  w.pads = list(c, "pads", 2 * axes, 0, INT64_MIN);
  w.auto_pad = c.node().attrs.text("auto_pad", "NOTSET");
  return w;
}

std::vector<int64_t> kernel_of(const InferContext& c, const SymbolicShape& weight, size_t axes) {
  auto kernel = c.node().attrs.integers("kernel_shape");
  if (kernel.empty()) {
    for (size_t i = 0; i < axes; ++i)
      kernel.push_back(weight[i + 2].known() ? weight[i + 2].size : 0);
  }
  if (kernel.size() != axes) c.fail("a kernel size a spatial dimension");
  for (size_t i = 0; i < axes; ++i) {
    const Dim& dim = weight[i + 2];
    if (kernel[i] <= 0 || (dim.known() && dim.size != kernel[i]))
      c.fail("a kernel as large as its weight, got " + to_string(weight));
  }
  return kernel;
}

Dim window_count(const InferContext& c, const Dim& dim, const Window& w, size_t i, bool ceiling) {
  const int64_t stride = w.strides[i];
  if (w.auto_pad == "SAME_UPPER" || w.auto_pad == "SAME_LOWER")
    return floor_divide(add(dim, stride - 1), stride);
  const int64_t reach = checked_add(checked_mul(w.dilations[i], w.kernel[i] - 1), 1);
  const int64_t padding =
      w.auto_pad == "VALID" ? 0 : checked_add(w.pads[i], w.pads[i + w.kernel.size()]);
  if (!dim.known()) {
    return add(
        floor_divide(add(dim, checked_add(checked_add(padding, -reach), ceiling ? stride - 1 : 0)),
                     stride),
        1);
  }
  const int64_t room = checked_add(checked_add(dim.size, padding), -reach);
  if (room < 0) c.fail("an input no smaller than the kernel, got size " + std::to_string(dim.size));
  int64_t count = room / stride + 1;
  if (ceiling && room % stride != 0) {
    // The last window must begin inside the input or its left padding.
    if (checked_mul(count, stride) < checked_add(dim.size, w.pads[i])) ++count;
  }
  return known_dim(count);
}

void convolve(InferContext& c, size_t data, size_t weights) {
  const auto *x = c.shape(data), *weight = c.shape(weights);
  if (!x || !weight) return;
  if (x->size() < 3 || x->size() != weight->size())
    c.fail("an input and a weight of equal rank, got " + to_string(*x) + " and " +
           to_string(*weight));
  const int64_t groups = c.node().attrs.integer("group", 1);
  if (groups <= 0) c.fail("a positive group count");
  if (!merge((*x)[1], multiply((*weight)[1], known_dim(groups)))) {
    c.fail("as many channels as the weight reads, got " + to_string(*x) + " and " +
           to_string(*weight));
  }
  const size_t axes = x->size() - 2;
  for (size_t i = 0; i < axes; ++i) {
    if (!(*weight)[i + 2].known() && c.node().attrs.integers("kernel_shape").empty()) return;
  }
  const Window w = window(c, kernel_of(c, *weight, axes));
  SymbolicShape out{(*x)[0], (*weight)[0]};
  for (size_t i = 0; i < axes; ++i) out.push_back(window_count(c, (*x)[i + 2], w, i, false));
  c.set_shape(0, std::move(out));
}

std::optional<std::vector<double>> scales_of(const InferContext& c) {
  const Tensor* given = c.constant(2);
  if (!given || given->dtype() != DType::kF32 || given->rank() != 1) return std::nullopt;
  return std::vector<double>(given->as<float>().begin(), given->as<float>().end());
}

Dim scaled(const InferContext& c, const Dim& dim, double scale) {
  if (!(scale > 0) || !std::isfinite(scale)) c.fail("positive scales");
  if (dim.known()) {
    const double size = std::floor(static_cast<double>(dim.size) * scale);
    if (!(size < 1e15)) c.fail("sizes that fit into memory");
    return known_dim(static_cast<int64_t>(size));
  }
  return scale == std::floor(scale) && scale < 1e6
             ? multiply(dim, known_dim(static_cast<int64_t>(scale)))
             : Dim{};
}

}  // namespace

void conv(InferContext& c) { convolve(c, 0, 1); }

void conv_integer(InferContext& c) {
  c.set_dtype(0, DType::kI32);
  convolve(c, 0, 1);
}

void qlinear_conv(InferContext& c) {
  c.set_dtype(0, c.dtype(7));
  convolve(c, 0, 3);
}

void conv_transpose(InferContext& c) {
  const auto *x = c.shape(0), *weight = c.shape(1);
  if (!x || !weight) return;
  if (x->size() < 3 || x->size() != weight->size())
    c.fail("an input and a weight of equal rank, got " + to_string(*x) + " and " +
           to_string(*weight));
  if (!merge((*x)[1], (*weight)[0]))
    c.fail("as many channels as the weight reads, got " + to_string(*x) + " and " +
           to_string(*weight));
  const size_t axes = x->size() - 2;
  const int64_t groups = c.node().attrs.integer("group", 1);
  if (groups <= 0) c.fail("a positive group count");
  SymbolicShape out{(*x)[0], multiply((*weight)[1], known_dim(groups))};
  const auto fixed = c.node().attrs.integers("output_shape");
  if (!fixed.empty()) {
    if (fixed.size() != axes) c.fail("an output size a spatial dimension");
    for (const int64_t size : fixed) out.push_back(known_dim(std::max<int64_t>(0, size)));
    return c.set_shape(0, std::move(out));
  }
  const Window w = window(c, kernel_of(c, *weight, axes));
  const auto extra = list(c, "output_padding", axes, 0, 0);
  for (size_t i = 0; i < axes; ++i) {
    const Dim& dim = (*x)[i + 2];
    if (w.auto_pad == "SAME_UPPER" || w.auto_pad == "SAME_LOWER") {
      out.push_back(multiply(dim, known_dim(w.strides[i])));
      continue;
    }
    const int64_t reach = checked_add(checked_mul(w.dilations[i], w.kernel[i] - 1), 1);
    const int64_t padding = w.auto_pad == "VALID" ? 0 : checked_add(w.pads[i], w.pads[i + axes]);
    const Dim span = multiply(add(dim, -1), known_dim(w.strides[i]));
    // Multiplied out, so that a stride of 2 over "height" reads "2*height".
    const int64_t rest = checked_add(checked_add(extra[i], reach), checked_mul(padding, -1));
    if (dim.known()) out.push_back(add(span, rest));
    else
      out.push_back(add(multiply(dim, known_dim(w.strides[i])), checked_add(rest, -w.strides[i])));
  }
  c.set_shape(0, std::move(out));
}

void pool(InferContext& c) {
  c.set_dtype(1, DType::kI64);
  const auto* x = c.shape(0);
  if (!x) return;
  if (x->size() < 3) c.fail("an input of 3 dimensions or more, got " + to_string(*x));
  const size_t axes = x->size() - 2;
  const Window w = window(c, list(c, "kernel_shape", axes, 0, 1));
  SymbolicShape out{(*x)[0], (*x)[1]};
  const bool ceiling = c.node().attrs.integer("ceil_mode", 0) != 0;
  for (size_t i = 0; i < axes; ++i) out.push_back(window_count(c, (*x)[i + 2], w, i, ceiling));
  c.set_shape(0, out);
  c.set_shape(1, std::move(out));
}

void global_pool(InferContext& c) {
  const auto* x = c.shape(0);
  if (!x) return;
  SymbolicShape out = *x;
  for (size_t i = 2; i < out.size(); ++i) out[i] = known_dim(1);
  c.set_shape(0, std::move(out));
}

void resize(InferContext& c) {
  const auto* x = c.shape(0);
  if (!x) return;
  std::vector<int64_t> axes = c.node().attrs.integers("axes");
  if (axes.empty()) {
    for (size_t i = 0; i < x->size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  SymbolicShape out = *x;
  const IntTensor* sizes = c.integers(3);
  const auto scales = scales_of(c);
  const bool stretch = c.node().attrs.text("keep_aspect_ratio_policy", "stretch") == "stretch";
  const size_t given = sizes ? sizes->elements.size() : scales ? scales->size() : axes.size();
  if (given != axes.size()) c.fail("a size or scale an axis of " + to_string(*x));
  for (size_t i = 0; i < axes.size(); ++i) {
    Dim& dim = out[static_cast<size_t>(c.axis(axes[i], x->size()))];
    if (sizes && stretch) dim = dim_of(sizes->elements[i]);
    else if (scales && !c.has(3)) dim = scaled(c, dim, (*scales)[i]);
    else dim = {};
  }
  c.set_shape(0, std::move(out));
}

}  // namespace repquant::shapes
