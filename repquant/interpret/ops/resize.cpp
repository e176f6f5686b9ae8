// Resize and Upsample: separable, one axis after the other. Every output position is a sum of few
// taps of the input, with weights computed in double.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "repquant/interpret/ops/ops.h"

namespace repquant::ops {
namespace {

struct Options {
  std::string mode, coordinates, nearest;
  double cubic_a = -0.75, extrapolation = 0.0;
  bool exclude_outside = false, antialias = false;
};

struct Axis {
  int64_t axis = 0, in = 0, out = 0;
  double scale = 1.0, roi_begin = 0.0, roi_end = 1.0;
};

// Where output position `o` lies among the input positions.
double coordinate(const Node& node, const Options& options, const Axis& a, int64_t o) {
  const auto x = static_cast<double>(o), in = static_cast<double>(a.in),
             out = static_cast<double>(a.out);
  const std::string& kind = options.coordinates;
  if (kind == "half_pixel") return (x + 0.5) / a.scale - 0.5;
  if (kind == "pytorch_half_pixel") return a.out > 1 ? (x + 0.5) / a.scale - 0.5 : 0.0;
  if (kind == "align_corners") return a.out > 1 ? x * (in - 1) / (out - 1) : 0.0;
  if (kind == "asymmetric") return x / a.scale;
  if (kind == "tf_half_pixel_for_nn") return (x + 0.5) / a.scale;
  if (kind == "half_pixel_symmetric") {
    const double adjustment = out / (a.scale * in);
    return in / 2 * (1 - adjustment) + (x + 0.5) / a.scale - 0.5;
  }
  if (kind == "tf_crop_and_resize") {
    if (a.out == 1) return 0.5 * (a.roi_begin + a.roi_end) * (in - 1);
    return a.roi_begin * (in - 1) + x * (a.roi_end - a.roi_begin) * (in - 1) / (out - 1);
  }
  malformed(node, "unknown coordinate_transformation_mode \"" + kind + "\"");
}

int64_t nearest_index(const Node& node, const Options& options, double x) {
  if (options.nearest == "round_prefer_floor") return static_cast<int64_t>(std::ceil(x - 0.5));
  if (options.nearest == "round_prefer_ceil") return static_cast<int64_t>(std::floor(x + 0.5));
  if (options.nearest == "floor") return static_cast<int64_t>(std::floor(x));
  if (options.nearest == "ceil") return static_cast<int64_t>(std::ceil(x));
  malformed(node, "unknown nearest_mode \"" + options.nearest + "\"");
}

// The interpolation kernel at distance d: a triangle, or Keys' cubic.
double kernel(const Options& options, double d) {
  d = std::abs(d);
  if (options.mode == "linear") return std::max(0.0, 1.0 - d);
  const double a = options.cubic_a;
  if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return ((d - 5) * d + 8) * a * d - 4 * a;
  return 0.0;
}

struct Taps {
  int64_t count = 0;
  std::vector<int64_t> index;   // [out, count]
  std::vector<double> weight;
  std::vector<bool> outside;    // [out]
};

Taps taps_of(const Node& node, const Options& options, const Axis& a) {
  Taps taps;
  const bool cubic = options.mode == "cubic";
  const double squeeze = options.antialias ? std::min(1.0, a.scale) : 1.0;
  const auto reach = static_cast<int64_t>(std::ceil((cubic ? 2.0 : 1.0) / squeeze));
  taps.count = options.mode == "nearest" ? 1 : 2 * reach;
  for (int64_t o = 0; o < a.out; ++o) {
    const double x = coordinate(node, options, a, o);
    taps.outside.push_back(options.coordinates == "tf_crop_and_resize" &&
                           (x < 0 || x > static_cast<double>(a.in - 1)));
    if (options.mode == "nearest") {
      taps.index.push_back(std::clamp(nearest_index(node, options, x), int64_t{0}, a.in - 1));
      taps.weight.push_back(1.0);
      continue;
    }
    const auto base = static_cast<int64_t>(std::floor(x));
    double total = 0.0;
    for (int64_t i = base - reach + 1; i <= base + reach; ++i) {
      double weight = kernel(options, (static_cast<double>(i) - x) * squeeze);
      if (options.exclude_outside && (i < 0 || i >= a.in)) weight = 0.0;
      total += weight;
      taps.index.push_back(std::clamp(i, int64_t{0}, a.in - 1));
      taps.weight.push_back(weight);
    }
    for (int64_t t = 1; t <= taps.count; ++t)
      taps.weight[taps.weight.size() - static_cast<size_t>(t)] /= total;
  }
  return taps;
}

at::Tensor resize_axis(const Node& node, const Options& options, const Axis& a,
                       const at::Tensor& x) {
  const Taps taps = taps_of(node, options, a);
  const at::Tensor index =
      torch::tensor(taps.index, at::kLong).reshape({a.out, taps.count}).to(x.device());
  if (options.mode == "nearest") return x.index_select(a.axis, index.flatten());
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[static_cast<size_t>(a.axis)] = a.out;
  const at::Tensor weight =
      torch::tensor(taps.weight, at::kDouble).reshape({a.out, taps.count}).to(x.options());
  at::Tensor result;
  for (int64_t t = 0; t < taps.count; ++t) {
    const at::Tensor term =
        x.index_select(a.axis, index.select(1, t)) * weight.select(1, t).reshape(shape);
    result = result.defined() ? result + term : term;
  }
  return result;
}

at::Tensor extrapolated(const Node& node, const Options& options, const std::vector<Axis>& axes,
                        at::Tensor y) {
  for (const Axis& a : axes) {
    const Taps taps = taps_of(node, options, a);
    for (int64_t o = 0; o < a.out; ++o) {
      if (!taps.outside[static_cast<size_t>(o)]) continue;
      y = y.index_fill(a.axis, torch::tensor({o}, at::kLong), options.extrapolation);
    }
  }
  return y;
}

Tensors resize_axes(const Node& node, const Options& options, const std::vector<Axis>& axes,
                    const at::Tensor& x) {
  if (options.mode != "nearest" && options.mode != "linear" && options.mode != "cubic") {
    malformed(node, "unknown mode \"" + options.mode + "\"");
  }
  const bool floats = at::isFloatingType(x.scalar_type()) || options.mode == "nearest";
  at::Tensor y = floats ? x : x.to(at::kDouble);
  for (const Axis& a : axes) {
    const bool crop = options.coordinates == "tf_crop_and_resize";
    if (a.out != a.in || a.scale != 1.0 || crop) y = resize_axis(node, options, a, y);
  }
  if (options.coordinates == "tf_crop_and_resize") y = extrapolated(node, options, axes, y);
  return {floats ? y : at::round(y).to(x.scalar_type())};
}

// One scale for every axis, so that the ratio of sides stays.
void keep_aspect(const Node& node, const std::string& policy, std::vector<Axis>& axes) {
  if (policy == "stretch" || axes.empty()) return;
  if (policy != "not_larger" && policy != "not_smaller")
    malformed(node, "unknown policy \"" + policy + "\"");
  double scale = axes[0].scale;
  for (const Axis& a : axes) {
    scale = policy == "not_larger" ? std::min(scale, a.scale) : std::max(scale, a.scale);
  }
  for (Axis& a : axes) {
    a.scale = scale;
    a.out = static_cast<int64_t>(std::floor(scale * static_cast<double>(a.in) + 0.5));
  }
}

std::vector<Axis> axes_of(const Node& node, const at::Tensor& x, const std::vector<double>& scales,
                          const std::vector<int64_t>& sizes, std::vector<int64_t> which,
                          const std::vector<double>& roi, const Options& options) {
  if (which.empty()) {
    which.resize(static_cast<size_t>(x.dim()));
    std::iota(which.begin(), which.end(), 0);
  }
  const size_t n = which.size();
  if ((sizes.empty() ? scales.size() : sizes.size()) != n)
    malformed(node, "scales or sizes do not fit the axes");
  const bool crop = options.coordinates == "tf_crop_and_resize";
  if (crop && roi.size() != 2 * n) malformed(node, "roi does not fit the axes");
  std::vector<Axis> axes;
  for (size_t i = 0; i < n; ++i) {
    Axis a{normal_axis(node, which[i], x.dim())};
    a.in = x.size(a.axis);
    if (crop) {
      a.roi_begin = roi[i];
      a.roi_end = roi[i + n];
    }
    if (sizes.empty()) {
      if (!(scales[i] > 0) || !(scales[i] < 1e6)) malformed(node, "a scale out of range");
      a.scale = scales[i];
      const double part = crop ? a.roi_end - a.roi_begin : 1.0;
      a.out = static_cast<int64_t>(std::floor(static_cast<double>(a.in) * part * a.scale));
    } else {
      a.out = sizes[i];
      a.scale = static_cast<double>(a.out) / static_cast<double>(std::max<int64_t>(1, a.in));
    }
    axes.push_back(a);
  }
  if (!sizes.empty()) {
    keep_aspect(node, node.attrs.text("keep_aspect_ratio_policy", "stretch"), axes);
  }
  for (const Axis& a : axes) {
    if (a.in < 1 || a.out < 1) malformed(node, "cannot resize " + std::to_string(a.in) + " to " +
                                                   std::to_string(a.out));
  }
  return axes;
}

Tensors resize(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  const Attrs& attrs = node.attrs;
  Options options{attrs.text("mode", "nearest"),
                  attrs.text("coordinate_transformation_mode", "half_pixel"),
                  attrs.text("nearest_mode", "round_prefer_floor"),
                  attrs.real("cubic_coeff_a", -0.75F), attrs.real("extrapolation_value", 0.0F)};
  options.exclude_outside = attrs.integer("exclude_outside", 0) != 0;
  options.antialias = attrs.integer("antialias", 0) != 0;
  const auto roi = present(in, 1) ? to_reals(in[1]) : std::vector<double>{};
  const auto scales = present(in, 2) ? to_reals(in[2]) : std::vector<double>{};
  const auto sizes = present(in, 3) && scales.empty() ? to_ints(in[3]) : std::vector<int64_t>{};
  return resize_axes(node, options,
                     axes_of(node, x, scales, sizes, attrs.integers("axes"), roi, options), x);
}

Tensors upsample(const Node& node, Inputs in) {
  const at::Tensor& x = required(node, in, 0);
  std::vector<double> scales;
  if (present(in, 1)) {
    scales = to_reals(in[1]);
  } else {
    const auto given = node.attrs.reals("scales");
    scales.assign(given.begin(), given.end());
  }
  const Options options{node.attrs.text("mode", "nearest"), "asymmetric", "floor"};
  return resize_axes(node, options, axes_of(node, x, scales, {}, {}, {}, options), x);
}

}  // namespace

OpFunction resize_op(OpKind op) {
  switch (op) {
    case OpKind::kResize: return resize;
    case OpKind::kUpsample: return upsample;
    default: return nullptr;
  }
}

}  // namespace repquant::ops
