#pragma once
// Row reductions in a fixed order, and the row laws built on them. Element i is added to virtual
// lane i mod 16, ascending, from +0; then lanes l and l+8, l+4, l+2, l+1 are added. Every
// instruction set can produce this order; rows are never split.
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "repquant/core/error.h"
#include "repquant/core/format/elementary.h"

namespace repquant {

constexpr int64_t kLanes = 16;

inline float combine_lanes(float* lane) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) lane[l] = lane[l] + lane[l + width];
  }
  return lane[0];
}

// Sum of value(0) .. value(count - 1).
template <class Value> float lane_sum(int64_t count, Value&& value) {
  float lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lane[l] = lane[l] + value(i + l);
  }
  for (int64_t l = 0; i < count; ++i, ++l) lane[l] = lane[l] + value(i);
  return combine_lanes(lane);
}

inline float lane_sum(std::span<const float> x) {
  const float* data = x.data();
  return lane_sum(static_cast<int64_t>(x.size()), [data](int64_t i) { return data[i]; });
}

// ---- norms --------------------------------------------------------------------------------------
struct RowStatistics {
  float mean = 0.0f, rstd = 0.0f;
};

// mean = sum/D; var = sum of (x-mean)^2 / D; rstd = 1/sqrt(var + eps); IEEE root and divisions.
inline RowStatistics layer_norm_statistics(std::span<const float> x, float eps) {
  const float* data = x.data();
  const int64_t count = static_cast<int64_t>(x.size());
  const float mean = lane_sum(x) / static_cast<float>(count);
  const float squares = lane_sum(count, [data, mean](int64_t i) {
    const float d = data[i] - mean;
    return d * d;
  });
  return {mean, 1.0f / std::sqrt(squares / static_cast<float>(count) + eps)};
}

inline float layer_norm_value(float x, RowStatistics row, float g, float beta) {
  return ((x - row.mean) * row.rstd) * g + beta;
}

// v = ((x-mean)*rstd)*g + beta, separate roundings. All spans have the length of the row; out may
// be x.
inline void layer_norm_row(std::span<const float> x, std::span<const float> g,
                           std::span<const float> beta, float eps, std::span<float> out) {
  const RowStatistics row = layer_norm_statistics(x, eps);
  for (size_t i = 0; i < x.size(); ++i) out[i] = layer_norm_value(x[i], row, g[i], beta[i]);
}

// rstd = 1/sqrt(sum of x^2 / D + eps)
inline float rms_norm_rstd(std::span<const float> x, float eps) {
  const float* data = x.data();
  const int64_t count = static_cast<int64_t>(x.size());
  const float squares = lane_sum(count, [data](int64_t i) { return data[i] * data[i]; });
  return 1.0f / std::sqrt(squares / static_cast<float>(count) + eps);
}

// v = (x*rstd)*g, then + beta unless beta is empty.
inline void rms_norm_row(std::span<const float> x, std::span<const float> g,
                         std::span<const float> beta, float eps, std::span<float> out) {
  const float rstd = rms_norm_rstd(x, eps);
  for (size_t i = 0; i < x.size(); ++i) {
    const float v = (x[i] * rstd) * g[i];
    out[i] = beta.empty() ? v : v + beta[i];
  }
}

// max(sqrt(sum of x^2), eps)
inline float l2_size(std::span<const float> x, float eps) {
  const float* data = x.data();
  const float size = std::sqrt(
      lane_sum(static_cast<int64_t>(x.size()), [data](int64_t i) { return data[i] * data[i]; }));
  return size > eps ? size : eps;
}

// y = x / max(sqrt(sum of x^2), eps); y may be x. A row whose size is NaN is divided by eps.
inline void l2_norm_row(std::span<const float> x, float eps, std::span<float> y) {
  const float size = l2_size(x, eps);
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] / size;
}

// ---- softmax ------------------------------------------------------------------------------------
inline float row_max(std::span<const float> x) {  // NaN is passed over
  float lane[kLanes];
  for (float& l : lane) l = -std::numeric_limits<float>::infinity();
  const int64_t count = static_cast<int64_t>(x.size());
  const float* data = x.data();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lane[l] = data[i + l] > lane[l] ? data[i + l] : lane[l];
  }
  for (; i < count; ++i) lane[0] = data[i] > lane[0] ? data[i] : lane[0];
  float best = lane[0];
  for (const float l : lane) best = l > best ? l : best;
  return best;
}

// e[i] = exp(x[i] - max); returns the lane sum. A row without a number above -inf gives zeros and
// 0.
inline float softmax_exp_row(std::span<const float> x, std::span<float> e) {
  const float most = row_max(x);
  if (most == -std::numeric_limits<float>::infinity()) {
    for (float& v : e) v = 0.0f;
    return 0.0f;
  }
  const size_t count = x.size();
  const float* in = x.data();
  float* out = e.data();
  for (size_t i = 0; i < count; ++i) out[i] = exp_f32(in[i] - most);
  return lane_sum(std::span<const float>(out, count));
}

// p = e / sum, one division each; p may be x.
inline void softmax_row(std::span<const float> x, std::span<float> p) {
  const float sum = softmax_exp_row(x, p);
  if (sum == 0.0f) return;
  float* out = p.data();
  for (size_t i = 0; i < p.size(); ++i) out[i] = out[i] / sum;
}

// Row codes: rne(255 e), e in [0, 1].
inline int32_t row_code(float e) { return quantize_uniform(e, 255.0f, 0, 0, 255); }

}  // namespace repquant
