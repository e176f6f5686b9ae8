#include "repquant/quantize/kernels.h"

#include <algorithm>
#include <vector>

// One build for every x86-64 level; the loader picks. No contraction: the clones give equal bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define REPQUANT_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define REPQUANT_CLONES
#endif

namespace repquant::quantize {
namespace {

// Round to nearest even for |v| < 2^22: every caller has clamped to a code range before.
inline float rne(float v) {
  constexpr float magic = 12582912.0f;
  return (v + magic) - magic;
}

inline float clamp(float v, float low, float high) {
  v = v > low ? v : low;  // NaN -> low
  return v < high ? v : high;
}

constexpr int64_t kPiece = 4096;
constexpr int kLanes = 16;

// Sum of squares of difference(i), i < n: 16 float lanes over pieces of 4096, their totals and the
// rest in double.
template <class Difference>
[[gnu::always_inline]] inline double sum_of_squares(int64_t n, const Difference& difference) {
  double total = 0.0;
  for (int64_t base = 0; base < n; base += kPiece) {
    const int64_t end = base + std::min(kPiece, n - base);
    float lanes[kLanes] = {};
    int64_t i = base;
    for (; i + kLanes <= end; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const float d = difference(i + l);
        lanes[l] += d * d;
      }
    }
    double piece = 0.0;
    for (const float lane : lanes) piece += static_cast<double>(lane);
    for (; i < end; ++i) {
      const float d = difference(i);
      piece += static_cast<double>(d) * static_cast<double>(d);
    }
    total += piece;
  }
  return total;
}

}  // namespace

REPQUANT_CLONES
void fake_uniform(const float* __restrict x, float* __restrict out, int64_t n, float inv, float s,
                  float low, float high) {
  for (int64_t i = 0; i < n; ++i) out[i] = s * rne(clamp(x[i] * inv, low, high));
}

REPQUANT_CLONES
void fake_channels(const float* __restrict x, float* __restrict out, int64_t rows, int64_t channels,
                   const float* __restrict inv, const float* __restrict s,
                   const float* __restrict lower, float top) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t i = r * channels + c;
      out[i] = lower[c] + s[c] * rne(clamp((x[i] - lower[c]) * inv[c], 0.0f, top));
    }
  }
}

REPQUANT_CLONES
void fake_real_zero(const float* __restrict x, float* __restrict out, int64_t n, float s,
                    float zero, float top) {
  for (int64_t i = 0; i < n; ++i) {
    const float code = clamp(rne(clamp(x[i] / s, -1e6f, 1e6f)) + zero, 0.0f, top);
    out[i] = s * (code - zero);
  }
}

REPQUANT_CLONES
void fake_log(const float* __restrict x, float* __restrict out, int64_t n, float shift,
              const float* __restrict thr, int count, const float* __restrict levels) {
  constexpr int64_t block = 256;
  int32_t codes[block];
  for (int64_t base = 0; base < n; base += block) {
    const int64_t m = std::min(block, n - base);
    for (int64_t i = 0; i < m; ++i) codes[i] = 0;
    for (int k = 0; k < count; ++k) {
      const float t = thr[k];
      for (int64_t i = 0; i < m; ++i) codes[i] += (x[base + i] + shift < t) ? 1 : 0;
    }
    for (int64_t i = 0; i < m; ++i) out[base + i] = levels[codes[i]] - shift;
  }
}

REPQUANT_CLONES
double error_uniform(const float* __restrict x, int64_t n, float inv, float s, float low,
                     float high) {
  return sum_of_squares(
      n, [=](int64_t i) __attribute__((always_inline)) {
        return x[i] - s * rne(clamp(x[i] * inv, low, high));
      });
}

double error_log(const float* x, int64_t n, float shift, const float* thr, int count,
                 const float* levels) {
  double total = 0.0;
  std::vector<float> decoded(static_cast<size_t>(std::min(n, kPiece)));
  for (int64_t base = 0; base < n; base += kPiece) {
    const int64_t m = std::min(kPiece, n - base);
    fake_log(x + base, decoded.data(), m, shift, thr, count, levels);
    total += sum_squares_difference(x + base, decoded.data(), m);
  }
  return total;
}

REPQUANT_CLONES
void error_channels(const float* __restrict x, int64_t rows, int64_t channels,
                    const float* __restrict inv, const float* __restrict s,
                    const float* __restrict lower, float top, double* __restrict errors) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = x + r * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const float d =
          row[c] - (lower[c] + s[c] * rne(clamp((row[c] - lower[c]) * inv[c], 0.0f, top)));
      errors[c] += static_cast<double>(d) * static_cast<double>(d);
    }
  }
}

void add_histogram(const float* x, int64_t n, float low, float inv_width, int bins,
                   uint64_t* counts) {
  const float last = static_cast<float>(bins - 1);
  for (int64_t i = 0; i < n; ++i) {
    ++counts[static_cast<int>(clamp((x[i] - low) * inv_width, 0.0f, last))];
  }
}

REPQUANT_CLONES
double sum_squares_difference(const float* __restrict a, const float* __restrict b, int64_t n) {
  return sum_of_squares(
      n, [=](int64_t i) __attribute__((always_inline)) { return a[i] - b[i]; });
}

}  // namespace repquant::quantize
