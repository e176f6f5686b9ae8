// Steps in f32 that work row by row.
#include <algorithm>
#include <cmath>

#include "repquant/core/format/reduce.h"
#include "repquant/simulate/steps.h"

namespace repquant::simulate {

void l2_norm(const StepContext& c) {
  const auto x = c.in[0]->as<float>();
  auto y = c.out.as<float>();
  const auto width = static_cast<size_t>(c.integer("width"));
  const float eps = c.reals("eps")[0];
  for (size_t first = 0; first < x.size(); first += width)
    l2_norm_row(x.subspan(first, width), eps, y.subspan(first, width));
}

void softmax(const StepContext& c) {
  const auto x = c.in[0]->as<float>();
  auto y = c.out.as<float>();
  const size_t width = static_cast<size_t>(c.in[0]->shape().back());
  for (size_t first = 0; first < x.size(); first += width)
    softmax_row(x.subspan(first, width), y.subspan(first, width));
}

void matmul(const StepContext& c) {
  const auto x = c.in[0]->as<float>();
  const bool constant = c.in.size() == 1;
  const auto right = constant ? c.reals("weight") : c.in[1]->as<float>();
  const Tensor* shift = c.plan.find_tensor(c.step, "b");
  const size_t depth = static_cast<size_t>(c.in[0]->shape().back());
  const size_t columns = static_cast<size_t>(c.out.shape().back());
  const size_t height = constant
                            ? x.size() / depth
                            : static_cast<size_t>(c.in[0]->shape()[c.in[0]->shape().size() - 2]);
  auto y = c.out.as<float>();
  for (size_t row = 0; row < x.size() / depth; ++row) {
    const float* w = right.data() + row / height * depth * columns;
    for (size_t n = 0; n < columns; ++n) {
      float sum = 0.0f;
      for (size_t k = 0; k < depth; ++k)
        sum = std::fmaf(x[row * depth + k], w[k * columns + n], sum);
      y[row * columns + n] = shift == nullptr ? sum : sum + shift->as<float>()[n];
    }
  }
}

void copy_rows(const StepContext& c) {
  const auto index = c.plan.tensor(c.step, "index").as<int32_t>();
  const size_t row = static_cast<size_t>(c.integer("width")) * size_of(c.out.dtype());
  const auto* in = static_cast<const std::byte*>(c.in[0]->data());
  auto* out = static_cast<std::byte*>(c.out.data());
  for (size_t i = 0; i < index.size(); ++i)
    std::memcpy(out + i * row, in + static_cast<size_t>(index[i]) * row, row);
}

}  // namespace repquant::simulate
