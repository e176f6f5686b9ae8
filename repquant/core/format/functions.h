#pragma once
// The scalar functions of the plan's `activation` step that are not composites of a model family:
// one fixed definition each, without libm but sqrt, separate multiplications and additions in the
// written order. Parameters a, b as the table below says. Error bounds (tested): log 2 ulp or 1e-7;
// sin, cos 2e-7 absolute for |x| <= 8192, larger arguments than 65536 count as 65536. Polynomials
// are minimax on the stated intervals. NaN in, NaN out.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "repquant/core/format/elementary.h"

namespace repquant {

// x = 2^n m, sqrt(1/2) <= m < sqrt 2, f = m - 1: log(1 + f) = f - f^2/2 + f^3 P(f).
inline float log_f32(float x) {
  const bool tiny = x < 0x1p-126f;
  const float scaled = select(tiny, x * 0x1p+23f, x);
  const uint32_t bits = std::bit_cast<uint32_t>(scaled);
  const int32_t exponent = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;
  const float m = std::bit_cast<float>(bits - (static_cast<uint32_t>(exponent) << 23));
  const float n = static_cast<float>(exponent) - select(tiny, 23.0f, 0.0f);
  const float f = m - 1.0f;
  float p = 0x1.145ca6p-4f;
  p = p * f + -0x1.e2ce4ep-4f;
  p = p * f + 0x1.e991eap-4f;
  p = p * f + -0x1.fb7e8ep-4f;
  p = p * f + 0x1.22f8a6p-3f;
  p = p * f + -0x1.555f16p-3f;
  p = p * f + 0x1.99a866p-3f;
  p = p * f + -0x1.000006p-2f;
  p = p * f + 0x1.55553ep-2f;
  float y = (((f * f) * (f * p - 0.5f) + n * -2.12194440e-4f) + f) + n * 0.693359375f;
  y = select(x > 0.0f, y, std::numeric_limits<float>::quiet_NaN());
  y = select(x == 0.0f, -std::numeric_limits<float>::infinity(), y);
  y = select(x < std::numeric_limits<float>::infinity(), y, x);  // infinity and NaN
  return y;
}

namespace format_detail {
// x = k pi/2 + r, |r| <= pi/4, pi/2 in three constants; k c is exact for the first two.
struct Turned {
  float sine, cosine;  // of r
  int32_t quadrant;    // k
};
inline Turned turned(float x) {
  const float raised = select(x > -65536.0f, x, -65536.0f);
  const float safe = select(raised < 65536.0f, raised, 65536.0f);
  const float k = round_small(safe * 0.636619772f);
  const float r = ((safe - k * 0x1.92p+0f) - k * 0x1.fb4p-12f) - k * 0x1.4442d2p-24f;
  const float u = r * r;
  float s = -0x1.98b5bap-13f;
  s = s * u + 0x1.110540p-7f;
  s = s * u + -0x1.55553ep-3f;
  float c = 0x1.99e3a8p-16f;
  c = c * u + -0x1.6c0c24p-10f;
  c = c * u + 0x1.55554ap-5f;
  return {r + (r * u) * s, ((u * u) * c + u * -0.5f) + 1.0f, static_cast<int32_t>(k)};
}
inline float turned_value(float even, float odd, int32_t quadrant, float x) {
  const float value = select((quadrant & 1) != 0, odd, even);
  const float y = select((quadrant & 2) != 0, -value, value);
  return select(x == x, y, x);
}
inline float unit_range(float v) {  // NaN stays
  const float raised = select(v < 0.0f, 0.0f, v);
  return select(raised > 1.0f, 1.0f, raised);
}
}  // namespace format_detail

inline float sin_f32(float x) {
  const format_detail::Turned t = format_detail::turned(x);
  return format_detail::turned_value(t.sine, t.cosine, t.quadrant, x);
}
inline float cos_f32(float x) {
  const format_detail::Turned t = format_detail::turned(x);
  return format_detail::turned_value(t.sine, t.cosine, t.quadrant + 1, x);
}

inline float leaky_relu_f32(float x, float a) { return select(x > 0.0f, x, a * x); }
inline float elu_f32(float x, float a) { return select(x > 0.0f, x, a * (exp_f32(x) - 1.0f)); }
inline float hard_sigmoid_f32(float x, float a, float b) {
  return format_detail::unit_range(x * a + b);
}
inline float hard_swish_f32(float x) { return x * hard_sigmoid_f32(x, 0.166666672f, 0.5f); }
inline float clip_f32(float x, float a, float b) {
  const float raised = select(x < a, a, x);
  return select(raised > b, b, raised);
}
inline float softplus_f32(float x) {
  return select(x > 0.0f, x, 0.0f) + log_f32(1.0f + exp_f32(-std::fabs(x)));
}
inline float mish_f32(float x) {
  const float v = format_detail::bounded_below(x);
  return v * tanh_f32(softplus_f32(v));
}
inline float square_f32(float x) { return x * x; }
inline float sqrt_f32(float x) { return std::sqrt(x); }
inline float rsqrt_f32(float x) { return 1.0f / std::sqrt(x); }
inline float reciprocal_f32(float x) { return 1.0f / x; }
inline float neg_f32(float x) { return -x; }
inline float abs_f32(float x) { return std::fabs(x); }

// The kinds of `activation`: spelling, number of parameters (tensor "p"), law.
enum class FunctionKind : uint8_t {
  kGeluErf,
  kGeluTanh,
  kSilu,
  kRelu,
  kRelu6,
  kSigmoid,
  kTanh,
  kErf,
  kLeakyRelu,
  kElu,
  kHardSigmoid,
  kHardSwish,
  kClip,
  kSoftplus,
  kMish,
  kExp,
  kLog,
  kSin,
  kCos,
  kSqrt,
  kRsqrt,
  kReciprocal,
  kSquare,
  kNeg,
  kAbs
};

struct FunctionLaw {
  std::string_view name;
  int parameters;
  float (*value)(float x, float a, float b);
};

namespace format_detail {
template <float (*kValue)(float)> float without_parameters(float x, float, float) {
  return kValue(x);
}
template <float (*kValue)(float, float)> float with_one(float x, float a, float) {
  return kValue(x, a);
}
}  // namespace format_detail

// By FunctionKind.
inline constexpr FunctionLaw kFunctionLaws[] = {
    {"gelu_erf", 0, format_detail::without_parameters<gelu_erf_f32>},
    {"gelu_tanh", 0, format_detail::without_parameters<gelu_tanh_f32>},
    {"silu", 0, format_detail::without_parameters<silu_f32>},
    {"relu", 0, format_detail::without_parameters<relu_f32>},
    {"relu6", 0, format_detail::without_parameters<relu6_f32>},
    {"sigmoid", 0, format_detail::without_parameters<sigmoid_f32>},
    {"tanh", 0, format_detail::without_parameters<tanh_f32>},
    {"erf", 0, format_detail::without_parameters<erf_f32>},
    {"leaky_relu", 1, format_detail::with_one<leaky_relu_f32>},
    {"elu", 1, format_detail::with_one<elu_f32>},
    {"hard_sigmoid", 2, hard_sigmoid_f32},
    {"hard_swish", 0, format_detail::without_parameters<hard_swish_f32>},
    {"clip", 2, clip_f32},
    {"softplus", 0, format_detail::without_parameters<softplus_f32>},
    {"mish", 0, format_detail::without_parameters<mish_f32>},
    {"exp", 0, format_detail::without_parameters<exp_f32>},
    {"log", 0, format_detail::without_parameters<log_f32>},
    {"sin", 0, format_detail::without_parameters<sin_f32>},
    {"cos", 0, format_detail::without_parameters<cos_f32>},
    {"sqrt", 0, format_detail::without_parameters<sqrt_f32>},
    {"rsqrt", 0, format_detail::without_parameters<rsqrt_f32>},
    {"reciprocal", 0, format_detail::without_parameters<reciprocal_f32>},
    {"square", 0, format_detail::without_parameters<square_f32>},
    {"neg", 0, format_detail::without_parameters<neg_f32>},
    {"abs", 0, format_detail::without_parameters<abs_f32>},
};

inline std::optional<FunctionKind> function_kind(std::string_view name) {
  for (size_t i = 0; i < std::size(kFunctionLaws); ++i) {
    if (kFunctionLaws[i].name == name) return static_cast<FunctionKind>(i);
  }
  return std::nullopt;
}
inline const FunctionLaw& function_law(FunctionKind kind) {
  return kFunctionLaws[static_cast<size_t>(kind)];
}

// ---- two operands -------------------------------------------------------------------------------
enum class BinaryKind : uint8_t { kAdd, kSub, kReverseSub, kMul, kDiv, kReverseDiv, kMax, kMin };
inline constexpr std::string_view kBinaryNames[] = {"add", "sub",  "rsub", "mul",
                                                    "div", "rdiv", "max",  "min"};

inline std::optional<BinaryKind> binary_kind(std::string_view name) {
  for (size_t i = 0; i < std::size(kBinaryNames); ++i) {
    if (kBinaryNames[i] == name) return static_cast<BinaryKind>(i);
  }
  return std::nullopt;
}

// One IEEE operation. max, min: b where the operands compare equal; NaN where one is NaN, that of a
// before that of b.
inline float max_f32(float a, float b) { return select((a > b) | (a != a), a, b); }
inline float min_f32(float a, float b) { return select((a < b) | (a != a), a, b); }
template <BinaryKind kKind> float binary_value(float a, float b) {
  if constexpr (kKind == BinaryKind::kAdd) return a + b;
  if constexpr (kKind == BinaryKind::kSub) return a - b;
  if constexpr (kKind == BinaryKind::kReverseSub) return b - a;
  if constexpr (kKind == BinaryKind::kMul) return a * b;
  if constexpr (kKind == BinaryKind::kDiv) return a / b;
  if constexpr (kKind == BinaryKind::kReverseDiv) return b / a;
  if constexpr (kKind == BinaryKind::kMax) return max_f32(a, b);
  if constexpr (kKind == BinaryKind::kMin) return min_f32(a, b);
}

// ---- reductions ---------------------------------------------------------------------------------
enum class ReduceKind : uint8_t { kMean, kSum, kMax, kMin, kL2, kSumSquare };
inline constexpr std::string_view kReduceNames[] = {"mean", "sum", "max",
                                                    "min",  "l2",  "sum_square"};

inline std::optional<ReduceKind> reduce_kind(std::string_view name) {
  for (size_t i = 0; i < std::size(kReduceNames); ++i) {
    if (kReduceNames[i] == name) return static_cast<ReduceKind>(i);
  }
  return std::nullopt;
}

// One element into its virtual lane (core/format/reduce.h), two lanes into one, and the end.
template <ReduceKind kKind> constexpr float reduce_start() {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  return kKind == ReduceKind::kMax ? -infinity : kKind == ReduceKind::kMin ? infinity : 0.0f;
}
template <ReduceKind kKind> float reduce_join(float lane, float other) {
  if constexpr (kKind == ReduceKind::kMax) return max_f32(lane, other);
  if constexpr (kKind == ReduceKind::kMin) return min_f32(lane, other);
  return lane + other;
}
template <ReduceKind kKind> float reduce_element(float lane, float x) {
  if constexpr (kKind == ReduceKind::kL2 || kKind == ReduceKind::kSumSquare) return lane + x * x;
  return reduce_join<kKind>(lane, x);
}
template <ReduceKind kKind> float reduce_end(float joined, int64_t count) {
  if constexpr (kKind == ReduceKind::kMean) return joined / static_cast<float>(count);
  if constexpr (kKind == ReduceKind::kL2) return std::sqrt(joined);
  return joined;
}

}  // namespace repquant
