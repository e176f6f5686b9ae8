#pragma once
// The naive executor's f32 steps that work row by row. Included by testing_naive.h.
#include "repquant/runtime/testing_naive.h"

namespace repquant::testing {

// False: another op.
inline bool Naive::rows(const Step& step, Value& to) const {
  const Value& x = in(step, 0);
  const Shape &from = in_shape(step), &shape = out_buffer(step).item_shape;
  const auto width = static_cast<size_t>(
      step.ints.contains("width") ? attribute(step, "width") : static_cast<int32_t>(from.back()));
  const auto row_of = [&](size_t row) {
    const auto first = x.f.begin() + static_cast<std::ptrdiff_t>(row * width);
    return std::vector<float>(first, first + static_cast<std::ptrdiff_t>(width));
  };
  if (step.op == "softmax" || step.op == "l2_norm") {
    for (size_t row = 0; row < x.f.size() / width; ++row) {
      std::vector<float> e = row_of(row), terms;
      const float most = *std::max_element(e.begin(), e.end());
      for (float& v : e) {
        if (step.op == "softmax") v = exp_f32(v - most);
        terms.push_back(step.op == "softmax" ? v : v * v);
      }
      float divisor = lanes(terms);
      if (step.op == "l2_norm") divisor = std::max(std::sqrt(divisor), real(step, "eps", 0));
      for (const float v : e) to.f.push_back(v / divisor);
    }
    return true;
  }
  if (step.op == "matmul") {
    const auto columns = static_cast<size_t>(shape.back());
    const float* right = step.in.size() == 2 ? in(step, 1).f.data()
                                             : plan_.tensor(step, "weight").as<float>().data();
    for (size_t row = 0; row < x.f.size() / width; ++row) {
      const size_t matrix =
          step.in.size() == 2 ? row / static_cast<size_t>(from[from.size() - 2]) : 0;
      for (size_t n = 0; n < columns; ++n) {
        float sum = 0.0f;
        for (size_t k = 0; k < width; ++k)
          sum = std::fmaf(x.f[row * width + k], right[(matrix * width + k) * columns + n], sum);
        if (step.tensors.contains("b")) sum = sum + plan_.tensor(step, "b").as<float>()[n];
        to.f.push_back(sum);
      }
    }
    return true;
  }
  if (step.op != "copy_rows") return false;
  for (const int32_t index : plan_.tensor(step, "index").as<int32_t>()) {
    for (size_t i = 0; i < width; ++i) {
      const size_t at = static_cast<size_t>(index) * width + i;
      if (x.f.empty()) to.q.push_back(x.q[at]);
      else to.f.push_back(x.f[at]);
    }
  }
  return true;
}

}  // namespace repquant::testing
