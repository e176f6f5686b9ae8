#include "repquant/lower/linear_weights.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/format/uniform.h"

namespace repquant::lowering {
namespace {

constexpr double kSmallestMultiplier = 0x1p-100, kLargestMultiplier = 0x1p100;
constexpr int64_t kAccumulatorLimit = int64_t{1} << 31;

void check_weight_spec(const QParams& params, int64_t n, const std::string& subject) {
  const auto* uniform = std::get_if<Uniform>(&params.spec.format);
  const auto* channel = std::get_if<PerChannel>(&params.spec.granularity);
  const bool tensor = std::holds_alternative<PerTensor>(params.spec.granularity);
  if (uniform == nullptr || !(tensor || (channel != nullptr && channel->axis == 0))) {
    throw Error(ErrorCode::kUnsupported,
                "lower: " + subject +
                    ": expected uniform weight codes with one scale an output channel or "
                    "one for all, got " +
                    to_string(params.spec));
  }
  const size_t count = tensor ? 1 : static_cast<size_t>(n);
  const size_t zeros = params.zero_point.size();
  if (params.scale.size() != count || (zeros != count && !(uniform->symmetric && zeros == 0))) {
    throw Error(ErrorCode::kInternal, fmt::format("lower: {}: expected {} weight scales, got {}",
                                                  subject, count, params.scale.size()));
  }
}

// One row: codes of `row` in signed form.
void quantize_row(std::span<const float> row, float s, int32_t z, CodeRange range, int32_t offset,
                  bool round, const std::string& subject, int8_t* out) {
  if (!(s > 0.0f) || !std::isfinite(s)) {
    throw Error(ErrorCode::kInternal,
                fmt::format("lower: {}: weight scale {} is not positive", subject, s));
  }
  const float inv = inverse_scale(s);
  for (size_t k = 0; k < row.size(); ++k) {
    const int32_t q = quantize_uniform(row[k], inv, z, range.lo, range.hi);
    const double error = static_cast<double>(row[k]) - static_cast<double>(s) * (q - z);
    if (!round && !(std::fabs(error) <= 1e-3 * static_cast<double>(s))) {
      throw Error(
          ErrorCode::kInternal,
          fmt::format(
              "lower: {}: expected weights on their grid, got {} at column {}, {:.3g} steps "
              "from code {}",
              subject, row[k], k, error / static_cast<double>(s), q));
    }
    out[k] = static_cast<int8_t>(q - offset);
  }
}

// Largest |sum a w| + |zw sum (a - za)| of row n over all codes that fit the input's bits.
int64_t product_bound(const LinearWeights& weights, const CodeFormat& input, int64_t n) {
  const int64_t top = (int64_t{1} << input.bits) - 1;
  const int64_t centred = std::max(std::abs(int64_t{input.zero}), std::abs(top - input.zero));
  const int8_t* row = weights.w.data() + n * weights.k;
  int64_t size = 0;
  for (int64_t k = 0; k < weights.k; ++k) size += std::abs(int64_t{row[k]});
  return size * top + weights.k * centred * std::abs(int64_t{weights.zw[static_cast<size_t>(n)]});
}

int64_t row_sum(const LinearWeights& weights, int64_t n) {
  const int8_t* row = weights.w.data() + n * weights.k;
  int64_t sum = 0;
  for (int64_t k = 0; k < weights.k; ++k) sum += row[k];
  return sum;
}

// Bias plus what the level code's shift takes away: x = step a - shift.
double folded_bias(const LinearWeights& weights, const CodeFormat& input, int64_t n) {
  const size_t i = static_cast<size_t>(n);
  if (input.kind != CodeFormat::Kind::kLevels) return weights.bias[i];
  const double sum = static_cast<double>(row_sum(weights, n) - weights.k * int64_t{weights.zw[i]});
  return weights.bias[i] - input.shift * static_cast<double>(weights.scale[i]) * sum;
}

int64_t zero_part(const LinearWeights& weights, const CodeFormat& input, int64_t n) {
  return -int64_t{input.zero} * row_sum(weights, n);
}

bool in_range(double multiplier) {
  return multiplier >= kSmallestMultiplier && multiplier <= kLargestMultiplier;
}

}  // namespace

LinearWeights quantized_weights(const Tensor& weight, const Tensor* bias, const QParams& params,
                                bool round, const std::string& subject) {
  LinearWeights result;
  result.n = weight.shape().at(0);
  result.k = result.n > 0 ? weight.size() / result.n : 0;
  result.bits = params.spec.bits;
  check_weight_spec(params, result.n, subject);
  const Uniform& uniform = std::get<Uniform>(params.spec.format);
  const CodeRange range = code_range(result.bits, uniform);
  const int32_t offset = uniform.symmetric ? 0 : 1 << (result.bits - 1);
  const auto values = weight.as<float>();
  result.w.resize(values.size());
  for (int64_t n = 0; n < result.n; ++n) {
    const size_t i = params.scale.size() == 1 ? 0 : static_cast<size_t>(n);
    const int32_t z = params.zero_point.empty() ? 0 : params.zero_point[i];
    const size_t first = static_cast<size_t>(n * result.k);
    quantize_row(values.subspan(first, static_cast<size_t>(result.k)), params.scale[i], z, range,
                 offset, round, subject, result.w.data() + first);
    result.scale.push_back(params.scale[i]);
    result.zw.push_back(z - offset);
    const double b =
        bias == nullptr ? 0.0 : static_cast<double>(bias->as<float>()[static_cast<size_t>(n)]);
    if (!std::isfinite(b))
      throw Error(ErrorCode::kInternal, "lower: " + subject + ": bias is not finite");
    result.bias.push_back(b);
  }
  return result;
}

LinearWeights rows_of(const LinearWeights& all, int64_t begin, int64_t end) {
  const auto part = [&](const auto& values, int64_t width) {
    return std::decay_t<decltype(values)>(values.begin() + begin * width,
                                          values.begin() + end * width);
  };
  return {end - begin,        all.k,           all.bits,
          part(all.w, all.k), part(all.zw, 1), part(all.scale, 1),
          part(all.bias, 1)};
}

std::optional<LinearConstants> code_constants(const LinearWeights& weights, const CodeFormat& input,
                                              const CodeFormat& output) {
  LinearConstants result;
  const int64_t heads = static_cast<int64_t>(output.scale.size());
  if (output.kind != CodeFormat::Kind::kUniform || weights.n % heads != 0) return std::nullopt;
  const double sx = input.step();
  for (int64_t n = 0; n < weights.n; ++n) {
    const size_t i = static_cast<size_t>(n);
    const double product = sx * static_cast<double>(weights.scale[i]);
    const double bias = folded_bias(weights, input, n) / product;
    if (!(std::fabs(bias) < static_cast<double>(kAccumulatorLimit))) return std::nullopt;
    const int64_t c = static_cast<int64_t>(round_half_even(bias)) + zero_part(weights, input, n);
    if (product_bound(weights, input, n) + std::abs(c) >= kAccumulatorLimit) return std::nullopt;
    const double m = product / output.step(static_cast<size_t>(n / (weights.n / heads)));
    if (!in_range(m)) return std::nullopt;
    result.c.push_back(static_cast<int32_t>(c));
    result.m.push_back(static_cast<float>(m));
  }
  return result;
}

LinearConstants real_constants(const LinearWeights& weights, const CodeFormat& input,
                               const std::string& subject) {
  LinearConstants result;
  for (int64_t n = 0; n < weights.n; ++n) {
    const size_t i = static_cast<size_t>(n);
    const int64_t c = zero_part(weights, input, n);
    if (product_bound(weights, input, n) + std::abs(c) >= kAccumulatorLimit) {
      throw Error(
          ErrorCode::kUnsupported,
          fmt::format("lower: {}: {} inputs of {} bits by weights of {} bits overflow 32-bit sums",
                      subject, weights.k, input.bits, weights.bits));
    }
    const double s = input.step() * static_cast<double>(weights.scale[i]);
    if (!in_range(s)) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("lower: {}: output scale {} of row {} is outside 2^-100 .. 2^100",
                              subject, s, n));
    }
    result.c.push_back(static_cast<int32_t>(c));
    result.s.push_back(static_cast<float>(s));
    result.b.push_back(static_cast<float>(folded_bias(weights, input, n)));
  }
  return result;
}

}  // namespace repquant::lowering
