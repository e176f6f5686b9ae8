// Steps between f32 tensors, and from integer inputs.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "repquant/core/format/functions.h"
#include "repquant/core/format/reduce.h"
#include "repquant/core/plan_window.h"
#include "repquant/simulate/steps.h"

namespace repquant::simulate {
namespace {

// Offset in an operand of `shape`, broadcast to `to`, of element i of the result.
size_t broadcast_offset(int64_t i, const Shape& to, const Shape& shape) {
  int64_t offset = 0, stride = 1;
  for (size_t back = 0; back < to.size(); ++back) {
    const int64_t place = i % to[to.size() - 1 - back];
    i /= to[to.size() - 1 - back];
    if (back >= shape.size()) continue;
    const int64_t size = shape[shape.size() - 1 - back];
    offset += (size == 1 ? 0 : place) * stride;
    stride *= size;
  }
  return static_cast<size_t>(offset);
}

float binary_law(BinaryKind kind, float a, float b) {
  switch (kind) {
    case BinaryKind::kAdd:
      return a + b;
    case BinaryKind::kSub:
      return a - b;
    case BinaryKind::kReverseSub:
      return b - a;
    case BinaryKind::kMul:
      return a * b;
    case BinaryKind::kDiv:
      return a / b;
    case BinaryKind::kReverseDiv:
      return b / a;
    case BinaryKind::kMax:
      return max_f32(a, b);
    case BinaryKind::kMin:
      return min_f32(a, b);
  }
  REPQUANT_CHECK(false);
  return 0.0f;
}

float reduced(ReduceKind kind, const std::vector<float>& x) {
  if (kind == ReduceKind::kMax || kind == ReduceKind::kMin) {
    const bool most = kind == ReduceKind::kMax;
    const auto join = [most](float a, float b) { return most ? max_f32(a, b) : min_f32(a, b); };
    float lane[kLanes];
    std::fill(std::begin(lane), std::end(lane), most ? -INFINITY : INFINITY);
    for (size_t i = 0; i < x.size(); ++i) lane[i % kLanes] = join(lane[i % kLanes], x[i]);
    for (int64_t width = kLanes / 2; width > 0; width /= 2)
      for (int64_t l = 0; l < width; ++l) lane[l] = join(lane[l], lane[l + width]);
    return lane[0];
  }
  const bool squares = kind == ReduceKind::kL2 || kind == ReduceKind::kSumSquare;
  const float sum = lane_sum(static_cast<int64_t>(x.size()), [&](int64_t i) {
    const float v = x[static_cast<size_t>(i)];
    return squares ? v * v : v;
  });
  if (kind == ReduceKind::kMean) return sum / static_cast<float>(x.size());
  return kind == ReduceKind::kL2 ? std::sqrt(sum) : sum;
}

int64_t index_at(const Tensor& tensor, size_t i) {
  return tensor.dtype() == DType::kI64 ? tensor.as<int64_t>()[i] : tensor.as<int32_t>()[i];
}

// The elements of one window inside the image, rows before columns.
template <class T> std::vector<T> window_of(const StepContext& c, int64_t i) {
  const Window w = Window::of(c.step);
  const Shape &image = c.in[0]->shape(), &out = c.out.shape();
  const int64_t channel = i % out[2], ox = i / out[2] % out[1], oy = i / out[2] / out[1];
  std::vector<T> inside;
  for (int64_t k = 0; k < w.height * w.width; ++k) {
    const int64_t y = oy * w.stride_y - w.top + k / w.width,
                  x = ox * w.stride_x - w.left + k % w.width;
    if (y < 0 || x < 0 || y >= image[0] || x >= image[1]) continue;
    inside.push_back(
        c.in[0]->as<T>()[static_cast<size_t>((y * image[1] + x) * image[2] + channel)]);
  }
  return inside;
}

}  // namespace

void max_pool(const StepContext& c) {
  for (int64_t i = 0; i < c.out.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    if (c.out.dtype() == DType::kU8) {
      const std::vector<uint8_t> codes = window_of<uint8_t>(c, i);
      c.out.as<uint8_t>()[at] = *std::max_element(codes.begin(), codes.end());
      continue;
    }
    const std::vector<float> x = window_of<float>(c, i);
    float most = x.at(0);
    for (size_t k = 1; k < x.size(); ++k) most = max_f32(most, x[k]);
    c.out.as<float>()[at] = most;
  }
}

void average_pool(const StepContext& c) {
  const Window w = Window::of(c.step);
  for (int64_t i = 0; i < c.out.size(); ++i) {
    const std::vector<float> x = window_of<float>(c, i);
    float sum = 0.0f;
    for (const float v : x) sum = sum + v;
    const int64_t count =
        c.integer("include_pad") != 0 ? w.height * w.width : static_cast<int64_t>(x.size());
    c.out.as<float>()[static_cast<size_t>(i)] = sum / static_cast<float>(count);
  }
}

float function_value(const StepContext& c, float x) {
  const FunctionLaw& law = function_law(*function_kind(c.step.strings.at("kind")));
  float p[2] = {};
  if (law.parameters > 0) std::ranges::copy(c.reals("p"), p);
  return law.value(x, p[0], p[1]);
}

void activation(const StepContext& c) {
  const auto x = c.in[0]->as<float>();
  auto y = c.out.as<float>();
  for (size_t i = 0; i < x.size(); ++i) y[i] = function_value(c, x[i]);
}

void binary(const StepContext& c) {
  const BinaryKind kind = *binary_kind(c.step.strings.at("kind"));
  const Tensor& other = c.in.size() == 2 ? *c.in[1] : c.plan.tensor(c.step, "const");
  const auto a = c.in[0]->as<float>(), b = other.as<float>();
  auto y = c.out.as<float>();
  for (int64_t i = 0; i < c.out.size(); ++i) {
    y[static_cast<size_t>(i)] =
        binary_law(kind, a[broadcast_offset(i, c.out.shape(), c.in[0]->shape())],
                   b[broadcast_offset(i, c.out.shape(), other.shape())]);
  }
}

void concat(const StepContext& c) {
  const auto axis = static_cast<size_t>(c.integer("axis"));
  const Shape& to = c.out.shape();
  size_t outer = 1, inner = size_of(c.out.dtype());
  for (size_t i = 0; i < axis; ++i) outer *= static_cast<size_t>(to[i]);
  for (size_t i = axis + 1; i < to.size(); ++i) inner *= static_cast<size_t>(to[i]);
  auto* out = static_cast<std::byte*>(c.out.data());
  for (size_t o = 0; o < outer; ++o) {
    for (const Tensor* part : c.in) {
      const size_t bytes = static_cast<size_t>(part->shape()[axis]) * inner;
      std::memcpy(out, static_cast<const std::byte*>(part->data()) + o * bytes, bytes);
      out += bytes;
    }
  }
}

void reduce(const StepContext& c) {
  const ReduceKind kind = *reduce_kind(c.step.strings.at("kind"));
  const std::vector<int64_t>& axes = c.step.lists.at("axes");
  const Shape& from = c.in[0]->shape();
  size_t count = 1, inner = 1;
  for (size_t i = 0; i < from.size(); ++i) {
    const auto axis = static_cast<int64_t>(i);
    if (axis >= axes[0] && axis <= axes[1]) count *= static_cast<size_t>(from[i]);
    if (axis > axes[1]) inner *= static_cast<size_t>(from[i]);
  }
  const auto x = c.in[0]->as<float>();
  auto y = c.out.as<float>();
  std::vector<float> line(count);
  for (size_t i = 0; i < y.size(); ++i) {
    for (size_t k = 0; k < count; ++k) line[k] = x[(i / inner * count + k) * inner + i % inner];
    y[i] = reduced(kind, line);
  }
}

void gather_rows(const StepContext& c) {
  const Tensor& table = c.plan.tensor(c.step, "table");
  const int64_t rows = table.shape()[0];
  const auto width = static_cast<size_t>(table.shape()[1]);
  auto y = c.out.as<float>();
  for (size_t i = 0; i < y.size() / width; ++i) {
    int64_t row = index_at(*c.in[0], i);
    if (row < 0) row += rows;
    row = std::clamp<int64_t>(row, 0, rows - 1);
    for (size_t k = 0; k < width; ++k)
      y[i * width + k] = table.as<float>()[static_cast<size_t>(row) * width + k];
  }
}

void cast(const StepContext& c) {
  auto y = c.out.as<float>();
  for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(index_at(*c.in[0], i));
}

}  // namespace repquant::simulate
