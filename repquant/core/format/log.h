#pragma once
// Logarithmic codes of base 2^(1/B) (struct Log): B = 1 log2, B = 2 log-sqrt2 (RepQ-ViT,
// arXiv 2212.08254), B = 37/k AdaLog. A code is the number of stored thresholds above the value: no
// logarithm is taken. With K thresholds codes 0 .. K-1 are the levels s 2^(-q/B), code K is exactly
// 0.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "repquant/core/error.h"
#include "repquant/core/format/uniform.h"
#include "repquant/core/quant_spec.h"

namespace repquant {

// K. Strict: 2^b - 1, at most 31 for B = 2 (the shift limit of the parity law), so 2^b outputs at
// most. Compat: 2^b, one output more, as published code has it.
inline int log_level_count(int bits, const Log& format) {
  REPQUANT_CHECK(bits >= 2 && bits <= 8);
  if (format.compat) return 1 << bits;
  const int levels = (1 << bits) - 1;
  return format.base == 2.0 ? std::min(levels, 31) : levels;
}

// tau_k = f32(scale 2^(-(k + 1/2)/B)), k < count: evaluated in double, rounded once, descending.
inline std::vector<float> log_thresholds(double scale, double B, int count) {
  std::vector<float> thresholds(static_cast<size_t>(count));
  for (int k = 0; k < count; ++k) {
    thresholds[static_cast<size_t>(k)] = static_cast<float>(scale * std::exp2(-(k + 0.5) / B));
  }
  return thresholds;
}

// #{k : x < thr[k]}, 0 for NaN.
inline int log_code(float x, std::span<const float> thr) {
  int code = 0;
  for (const float t : thr) code += x < t ? 1 : 0;
  return code;
}

inline double log_level(double scale, double B, int code) { return scale * std::exp2(-code / B); }

// ---- integer levels: what the table kernels execute ---------------------------------------------
constexpr int kLogTable8One = 255;
constexpr int kLogTable16One = 1 << 14;

// K + 1 entries rne(255 2^(-q/B)); the last, the zero code, is 0.
inline std::vector<uint8_t> log_table8(double B, int K) {
  std::vector<uint8_t> table(static_cast<size_t>(K) + 1, 0);
  for (int q = 0; q < K; ++q) {
    table[static_cast<size_t>(q)] =
        static_cast<uint8_t>(round_half_even(log_level(kLogTable8One, B, q)));
  }
  return table;
}

inline std::vector<uint16_t> log_table16(double B, int K) {
  std::vector<uint16_t> table(static_cast<size_t>(K) + 1, 0);
  for (int q = 0; q < K; ++q) {
    table[static_cast<size_t>(q)] =
        static_cast<uint16_t>(round_half_even(log_level(kLogTable16One, B, q)));
  }
  return table;
}

// The real value of a code, in double: exact power (table_bits 0), s L/255 (8) or s L/2^14 (16).
inline double log_value(double scale, const Log& format, int code, int K) {
  if (code >= K) return 0.0;
  if (format.table_bits == 0) return log_level(scale, format.base, code);
  const double one = format.table_bits == 8 ? kLogTable8One : kLogTable16One;
  return scale * round_half_even(log_level(one, format.base, code)) / one;
}

// ---- the parity law, B = 2 ----------------------------------------------------------------------
// Level of code q < K: 2^-ceil(q/2), times sqrt2 when q is odd. Sums of v 2^(R - ceil(q/2)) are
// kept apart for even (E) and odd (O) codes; codes >= K add nothing. acc = (E + sqrt2 O) 2^-R.
constexpr double kSqrt2 = 1.4142135623730951;

inline int parity_shift(int K) { return std::min(K / 2, 15); }  // R = ceil((K-1)/2)

struct ParitySums {
  int64_t even = 0, odd = 0;
};

inline void parity_accumulate(ParitySums& sums, int code, int32_t v, int K, int R) {
  if (code >= K) return;
  const int64_t term = static_cast<int64_t>(v) * (int64_t{1} << (R - (code + 1) / 2));
  (code % 2 != 0 ? sums.odd : sums.even) += term;
}

// In double, rounded once to f32 (2^-R is exact).
inline float parity_combine(int64_t even, int64_t odd, int R) {
  const double sum = static_cast<double>(even) + kSqrt2 * static_cast<double>(odd);
  return static_cast<float>(sum / static_cast<double>(int64_t{1} << R));
}

// ---- the shift law, B = 1 -----------------------------------------------------------------------
// acc = sum v 2^(R - q) over codes q < K, R = K - 1 <= 30; value acc 2^-R, rounded once.
inline int shift_shift(int K) { return K - 1; }
inline int64_t shift_term(int code, int32_t v, int K, int R) {
  return code >= K ? 0 : static_cast<int64_t>(v) * (int64_t{1} << (R - code));
}
inline float shift_combine(int64_t acc, int R) {
  return static_cast<float>(static_cast<double>(acc) / static_cast<double>(int64_t{1} << R));
}

}  // namespace repquant
