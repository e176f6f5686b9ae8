// Separable resampling: each output sample is a weighted mean of the input samples under the filter
// kernel, centred at the same relative position and stretched by the reduction factor (never
// shrunk).
#include <algorithm>
#include <cmath>

#include "repquant/core/error.h"
#include "repquant/data/image.h"

namespace repquant {
namespace {

constexpr int kFractionBits = 22;  // 8-bit samples times coefficients of this precision fit 32 bits

double triangle(double x) { return std::max(0.0, 1.0 - std::fabs(x)); }

// Keys (1981) with a = -1/2.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

struct Taps {
  std::vector<int> first;       // [out] first input sample
  std::vector<int> count;       // [out] taps in use
  std::vector<int32_t> weight;  // [out][width], fixed point
  int width = 0;
};

Taps make_taps(int in, int out, Interpolation interpolation) {
  const bool bicubic = interpolation == Interpolation::kBicubic;
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(scale, 1.0);
  const double support = (bicubic ? 2.0 : 1.0) * stretch;
  Taps taps;
  taps.width = static_cast<int>(std::ceil(support)) * 2 + 1;
  taps.first.resize(static_cast<size_t>(out));
  taps.count.resize(static_cast<size_t>(out));
  taps.weight.assign(static_cast<size_t>(out) * static_cast<size_t>(taps.width), 0);
  std::vector<double> values(static_cast<size_t>(taps.width));
  for (int i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    const int begin = std::max(0, static_cast<int>(center - support + 0.5));
    const int end = std::min(in, static_cast<int>(center + support + 0.5));
    const int count = end - begin;
    REPQUANT_CHECK(count >= 1 && count <= taps.width);
    double sum = 0.0;
    for (int k = 0; k < count; ++k) {
      const double x = (k + begin - center + 0.5) * (1.0 / stretch);
      values[static_cast<size_t>(k)] = bicubic ? cubic(x) : triangle(x);
      sum += values[static_cast<size_t>(k)];
    }
    int32_t* weights = &taps.weight[static_cast<size_t>(i) * static_cast<size_t>(taps.width)];
    for (int k = 0; k < count; ++k) {
      const double w =
          (sum != 0.0 ? values[static_cast<size_t>(k)] / sum : 0.0) * (1 << kFractionBits);
      weights[k] = static_cast<int32_t>(w < 0 ? w - 0.5 : w + 0.5);
    }
    taps.first[static_cast<size_t>(i)] = begin;
    taps.count[static_cast<size_t>(i)] = count;
  }
  return taps;
}

uint8_t to_sample(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

Image resize_rows(const Image& image, int width, Interpolation interpolation) {
  const Taps taps = make_taps(image.width, width, interpolation);
  const size_t c = static_cast<size_t>(image.channels);
  Image out{width, image.height, image.channels, {}};
  out.pixels.resize(static_cast<size_t>(width) * static_cast<size_t>(image.height) * c);
  uint8_t* target = out.pixels.data();
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* row =
        &image.pixels[static_cast<size_t>(y) * static_cast<size_t>(image.width) * c];
    for (size_t x = 0; x < static_cast<size_t>(width); ++x) {
      const int32_t* weights = &taps.weight[x * static_cast<size_t>(taps.width)];
      for (size_t channel = 0; channel < c; ++channel) {
        const uint8_t* source = row + static_cast<size_t>(taps.first[x]) * c + channel;
        int32_t sum = 1 << (kFractionBits - 1);
        for (int k = 0; k < taps.count[x]; ++k)
          sum += source[static_cast<size_t>(k) * c] * weights[k];
        *target++ = to_sample(sum);
      }
    }
  }
  return out;
}

Image resize_columns(const Image& image, int height, Interpolation interpolation) {
  const Taps taps = make_taps(image.height, height, interpolation);
  const size_t stride = static_cast<size_t>(image.width) * static_cast<size_t>(image.channels);
  Image out{image.width, height, image.channels, {}};
  out.pixels.resize(stride * static_cast<size_t>(height));
  std::vector<int32_t> sums(stride);
  for (size_t y = 0; y < static_cast<size_t>(height); ++y) {
    std::fill(sums.begin(), sums.end(), 1 << (kFractionBits - 1));
    for (int k = 0; k < taps.count[y]; ++k) {
      const int32_t weight =
          taps.weight[y * static_cast<size_t>(taps.width) + static_cast<size_t>(k)];
      const uint8_t* source = &image.pixels[static_cast<size_t>(taps.first[y] + k) * stride];
      for (size_t x = 0; x < stride; ++x) sums[x] += source[x] * weight;
    }
    for (size_t x = 0; x < stride; ++x) out.pixels[y * stride + x] = to_sample(sums[x]);
  }
  return out;
}

// Positions by repeated addition: a product would fall on the other side of some exact ties.
std::vector<size_t> nearest_samples(int in, int out) {
  const double step = static_cast<double>(in) / out;
  double position = 0.5 * step;
  std::vector<size_t> samples(static_cast<size_t>(out));
  for (size_t& sample : samples) {
    sample = static_cast<size_t>(std::min(static_cast<int>(position), in - 1));
    position += step;
  }
  return samples;
}

Image resize_nearest(const Image& image, int width, int height) {
  const size_t c = static_cast<size_t>(image.channels);
  const std::vector<size_t> columns = nearest_samples(image.width, width);
  Image out{width, height, image.channels, {}};
  out.pixels.reserve(static_cast<size_t>(width) * static_cast<size_t>(height) * c);
  for (const size_t row : nearest_samples(image.height, height)) {
    for (const size_t column : columns) {
      const uint8_t* source = &image.pixels[(row * static_cast<size_t>(image.width) + column) * c];
      out.pixels.insert(out.pixels.end(), source, source + c);
    }
  }
  return out;
}

}  // namespace

Image resize(const Image& image, int width, int height, Interpolation interpolation) {
  REPQUANT_CHECK(width >= 1 && height >= 1 && image.width >= 1 && image.height >= 1);
  if (width == image.width && height == image.height) return image;
  if (interpolation == Interpolation::kNearest) return resize_nearest(image, width, height);
  if (width == image.width) return resize_columns(image, height, interpolation);
  Image out = resize_rows(image, width, interpolation);
  return height == image.height ? out : resize_columns(out, height, interpolation);
}

}  // namespace repquant
