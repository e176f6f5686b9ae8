// Steps whose result is an int32 sum: linear, conv, depthwise, and the windows they read.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "repquant/core/format/uniform.h"
#include "repquant/core/plan_verifier.h"

namespace repquant::plan_checks {

// Whether no row can exceed int32 whatever its codes: `weights` bounds the sum of their sizes.
static bool bound_of_bits(int64_t weights, int64_t top, std::span<const int32_t> c,
                          std::span<const int32_t> zw, int64_t distance) {
  const auto largest = [](std::span<const int32_t> values) {
    int64_t most = 0;
    for (const int32_t v : values) most = std::max(most, std::abs(int64_t{v}));
    return most;
  };
  int64_t product = 0, correction = 0, sum = 0;
  return !__builtin_mul_overflow(weights, top, &product) &&
         !__builtin_mul_overflow(largest(zw), distance, &correction) &&
         !__builtin_add_overflow(product, correction, &sum) &&
         !__builtin_add_overflow(sum, largest(c), &sum) && sum <= kInt32Max &&
         distance <= kInt32Max;
}

void Verifier::accumulator_bounds(int64_t n, int64_t k) const {
  const PlanTensor& packed = plan_.tensors.at(step_->tensors.at("w"));
  check_weights(packed);
  const std::span<const int32_t> c = tensor("c", DType::kI32, {n}).as<int32_t>();
  std::span<const int32_t> zw;
  if (step_->tensors.contains("zw")) zw = tensor("zw", DType::kI32, {n}).as<int32_t>();
  const int64_t za = integer("za", -kMaxZeroPoint, kMaxZeroPoint);
  const int64_t top = highest_code(in(0));
  require(k <= kInt32Max / top, "row sums of codes within int32", fmt::format("K = {}", k));
  if (bound_of_bits(k << (packed.bits - 1), top, c, zw, k * largest_distance(in(0), za))) return;
  const std::vector<int8_t> w = unpack_weights(packed);
  for (int64_t row = 0; row < n; ++row) {
    int64_t size = 0;
    for (int64_t i = 0; i < k; ++i)
      size += std::abs(static_cast<int64_t>(w[static_cast<size_t>(row * k + i)]));
    const int64_t zero =
        zw.empty() ? 0 : std::abs(static_cast<int64_t>(zw[static_cast<size_t>(row)]));
    int64_t correction = 0, bound = 0;
    const bool fits = !__builtin_mul_overflow(zero, k * largest_distance(in(0), za), &correction) &&
                      !__builtin_add_overflow(
                          size * top + std::abs(static_cast<int64_t>(c[static_cast<size_t>(row)])),
                          correction, &bound) &&
                      bound <= kInt32Max &&
                      (zero == 0 || k * largest_distance(in(0), za) <= kInt32Max);
    if (!fits) require(false, "sums within int32", fmt::format("row {} that can exceed it", row));
  }
}

void Verifier::linear() {
  inputs(1, 2);
  type(in(0), DType::kU8);
  Shape expected = in(0).item_shape;
  const int64_t k = expected.back();
  require(step_->tensors.contains("w"), "a tensor \"w\"", "none");
  const PlanTensor& w = plan_.tensors.at(step_->tensors.at("w"));
  require(w.logical_shape.size() == 2 && w.logical_shape[0] >= 1 && w.logical_shape[1] == k,
          fmt::format("weights [N, {}]", k), to_string(w.logical_shape));
  const int64_t n = w.logical_shape[0];
  expected.back() = n;
  shape(out(), expected);
  accumulator_bounds(n, k);
  product_output(n);
}

// Codes or floats from int32 sums; a second input is a residual.
void Verifier::product_output(int64_t n) {
  if (out().dtype == DType::kU8) {
    inputs(1, 1);
    if (step_->op == "depthwise") roles({"w", "c", "zw", "m"});
    else roles({"w", "c", "zw", "m", "lut"});
    multipliers("m", n);
    if (step_->tensors.contains("lut")) {  // which then says what the output holds
      table_entries();
      codes_up_to(255);
    } else {
      output_codes();
    }
  } else {
    roles({"w", "c", "zw", "s", "b"});
    multipliers("s", n);
    finite("b", {n});
    if (step_->in.size() == 2) {
      type(in(1), DType::kF32);
      shape(in(1), out().item_shape);
    }
  }
}

// Checks sizes so that no product of them can overflow; returns the windows.
Window Verifier::window() const {
  const Window w = Window::of(*step_);
  require(in(0).item_shape.size() == 3, "items [H, W, C]", to_string(in(0).item_shape));
  constexpr int64_t most = 1 << 16;
  for (const int64_t v : {w.height, w.width, w.stride_y, w.stride_x, w.dilation_y, w.dilation_x})
    require(v >= 1 && v <= most, "kernel, strides and dilations in [1, 65536]", std::to_string(v));
  for (const int64_t v : {w.top, w.left, w.bottom, w.right})
    require(v >= 0 && v <= most, "pads in [0, 65536]", std::to_string(v));
  const Shape& image = in(0).item_shape;
  require(w.rows(image[0]) >= 1 && w.columns(image[1]) >= 1, "windows within the padded image",
          fmt::format("a kernel of {} x {} on {}", w.height, w.width, to_string(image)));
  return w;
}

void Verifier::patches() {
  inputs(1, 1);
  roles({});
  type(in(0), DType::kU8);
  copies(in(0), out());
  const Window w = window();
  const Shape& image = in(0).item_shape;
  int64_t depth = 0;
  require(!__builtin_mul_overflow(w.height * w.width, image[2], &depth), "patches of fewer codes",
          to_string(image));
  shape(out(), {w.rows(image[0]), w.columns(image[1]), depth});
  integer("fill", 0, highest_code(out()));
}

void Verifier::conv() {
  inputs(1, 2);
  type(in(0), DType::kU8);
  const Window w = window();
  const Shape& image = in(0).item_shape;
  int64_t depth = 0;
  require(!__builtin_mul_overflow(w.height * w.width, image[2], &depth), "windows of fewer codes",
          to_string(image));
  require(step_->tensors.contains("w"), "a tensor \"w\"", "none");
  const Shape& weights = plan_.tensors.at(step_->tensors.at("w")).logical_shape;
  require(weights.size() == 2 && weights[0] >= 1 && weights[1] == depth,
          fmt::format("weights [N, {}]", depth), to_string(weights));
  shape(out(), {w.rows(image[0]), w.columns(image[1]), weights[0]});
  accumulator_bounds(weights[0], depth);
  if (w.pads()) integer("za", 0, highest_code(in(0)));
  product_output(weights[0]);
}

void Verifier::depthwise() {
  inputs(1, 1);
  type(in(0), DType::kU8);
  const Window w = window();
  const Shape& image = in(0).item_shape;
  const int64_t channels = image[2];
  require(step_->tensors.contains("w"), "a tensor \"w\"", "none");
  const PlanTensor& weights = plan_.tensors.at(step_->tensors.at("w"));
  require(weights.logical_shape == Shape{channels, w.height * w.width},
          fmt::format("weights [{}, {}]", channels, w.height * w.width),
          to_string(weights.logical_shape));
  shape(out(), {w.rows(image[0]), w.columns(image[1]), channels});
  accumulator_bounds(channels, w.height * w.width);
  if (w.pads()) integer("za", 0, highest_code(in(0)));
  product_output(channels);
}

void Verifier::pool() {
  inputs(1, 1);
  roles({});
  copies(in(0), out());
  const Window w = window();
  const Shape& image = in(0).item_shape;
  shape(out(), {w.rows(image[0]), w.columns(image[1]), image[2]});
  // So that no window lies outside the image as a whole.
  require(std::max(w.top, w.bottom) <= w.dilation_y * (w.height - 1) &&
              std::max(w.left, w.right) <= w.dilation_x * (w.width - 1) && w.dilation_y == 1 &&
              w.dilation_x == 1,
          "pads smaller than the kernel, no dilation", to_string(image));
  if (step_->op == "max_pool") return;
  type(out(), DType::kF32);
  integer("include_pad", 0, 1);
}

void Verifier::pad() {
  inputs(1, 1);
  roles({});
  copies(in(0), out());
  const std::vector<int64_t>&before = list("before"), &after = list("after");
  Shape expected = in(0).item_shape;
  require(before.size() == expected.size() && after.size() == expected.size(),
          "\"before\" and \"after\" with one number an axis",
          fmt::format("{} and {}", before.size(), after.size()));
  for (size_t i = 0; i < expected.size(); ++i) {
    require(
        before[i] >= 0 && before[i] <= kMaxElements && after[i] >= 0 && after[i] <= kMaxElements,
        "pads in [0, 2^31]", fmt::format("{} and {}", before[i], after[i]));
    expected[i] += before[i] + after[i];
  }
  shape(out(), expected);
  if (out().dtype == DType::kU8) integer("fill", 0, highest_code(out()));
}

}  // namespace repquant::plan_checks
