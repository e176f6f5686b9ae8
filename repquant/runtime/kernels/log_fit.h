#pragma once
// Thresholds of log codes as a line over log2: vectors guess a code from the exponent and a
// polynomial of the mantissa, and look at a threshold only where the guess lies next to it. Codes
// are those of log_code (core/format) for any thresholds: what is no line has no fit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace repquant::runtime {

// Threshold k lies where offset - slope log2(x) = k, to within kFitError.
struct LogFit {
  bool usable = false;
  float slope = 0, offset = 0;
};

inline constexpr float kMostSlope = 32;  // codes an octave
inline constexpr double kFitError = 0x1p-12;
// The guess is off by at most kFitError and, with log2(1 + z) = z P(z) to 2.2e-6 (all 2^23
// mantissas tried), the exponent added at 2^-18 and the line at 2^-16 of rounding, by
// 32 (2.2e-6 + 2^-18) + 2^-16 < 2.2e-4: less than this together.
inline constexpr float kGuessError = 0x1p-11f;
inline constexpr float kLog2[] = {0x1.714b2ap+0f,  -0x1.6fc2a6p-1f, 0x1.d544f0p-2f,
                                  -0x1.1e3f3ep-2f, 0x1.f9a83ep-4f,  -0x1.b17a8cp-6f};

inline LogFit fit_log(const float* thresholds, int64_t count) {
  if (count < 2) return {};
  for (int64_t k = 0; k < count; ++k) {
    if (!(std::isfinite(thresholds[k]) && thresholds[k] >= std::numeric_limits<float>::min()))
      return {};
  }
  const auto log2 = [&](int64_t k) { return std::log2(static_cast<double>(thresholds[k])); };
  const double octaves = log2(0) - log2(count - 1);
  if (!(octaves > 0)) return {};
  LogFit fit;
  fit.slope = static_cast<float>(static_cast<double>(count - 1) / octaves);
  fit.offset = static_cast<float>(fit.slope * log2(0));
  if (!(fit.slope <= kMostSlope)) return {};
  for (int64_t k = 0; k < count; ++k) {
    const double at = static_cast<double>(fit.offset) - static_cast<double>(fit.slope) * log2(k);
    if (!(std::fabs(at - static_cast<double>(k)) <= kFitError)) return {};
  }
  fit.usable = true;
  return fit;
}

}  // namespace repquant::runtime
