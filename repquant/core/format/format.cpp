#include "repquant/core/format/format.h"

#include "repquant/core/format/log.h"
#include "repquant/core/format/power.h"
#include "repquant/core/format/twin.h"
#include "repquant/core/format/uniform.h"

namespace repquant {
namespace {

template <class T> T element(const std::vector<T>& values, int64_t index, T absent) {
  if (values.empty()) return absent;
  if (values.size() == 1) return values[0];
  REPQUANT_CHECK(index >= 0 && index < static_cast<int64_t>(values.size()));
  return values[static_cast<size_t>(index)];
}

}  // namespace

Coder::Coder(const QParams& params, int64_t index) : spec_(params.spec) {
  scale_ = element(params.scale, index, 1.0f);
  REPQUANT_CHECK(scale_ > 0.0f && spec_.bits >= 2 && spec_.bits <= 8);
  inverse_ = inverse_scale(scale_);
  zero_ = element(params.zero_point, index, 0);
  real_lower_ = !params.lower.empty();
  lower_ = element(params.lower, index, 0.0f);
  highest_ = (1 << spec_.bits) - 1;
  if (const Uniform* uniform = std::get_if<Uniform>(&spec_.format)) {
    const CodeRange range = code_range(spec_.bits, *uniform);
    lowest_ = range.lo;
    highest_ = range.hi;
  } else if (const Log* log = std::get_if<Log>(&spec_.format)) {
    highest_ = log_level_count(spec_.bits, *log);
    thresholds_ = log_thresholds(static_cast<double>(scale_), log->base, highest_);
  } else if (const Twin* twin = std::get_if<Twin>(&spec_.format)) {
    if (twin->gelu) lowest_ = -(1 << (spec_.bits - 1));
    if (twin->gelu) highest_ = -lowest_ - 1;
  } else {
    highest_ = (1 << (spec_.bits - 1)) - 1;
    lowest_ = -highest_;
  }
}

int32_t Coder::encode(float x) const {
  if (const Log* log = std::get_if<Log>(&spec_.format)) {
    return log_code(x + static_cast<float>(log->shift), thresholds_);
  }
  if (const Twin* twin = std::get_if<Twin>(&spec_.format)) {
    return twin->gelu ? twin_gelu_encode(x, scale_, spec_.bits)
                      : twin_softmax_encode(x, scale_, twin->m, spec_.bits);
  }
  if (const Power* power = std::get_if<Power>(&spec_.format)) {
    return power_encode(x, scale_, power->exponent, spec_.bits);
  }
  if (real_lower_) return quantize_uniform(x - lower_, inverse_, 0, lowest_, highest_);
  return quantize_uniform(x, inverse_, zero_, lowest_, highest_);
}

float Coder::decode(int32_t code) const {
  if (const Log* log = std::get_if<Log>(&spec_.format)) {
    const double level = log_value(static_cast<double>(scale_), *log, code, highest_);
    return static_cast<float>(level) - static_cast<float>(log->shift);
  }
  if (const Twin* twin = std::get_if<Twin>(&spec_.format)) {
    return twin->gelu ? twin_gelu_decode(code, scale_, spec_.bits)
                      : twin_softmax_decode(code, scale_, twin->m, spec_.bits);
  }
  if (const Power* power = std::get_if<Power>(&spec_.format)) {
    return power_decode(code, scale_, power->exponent, spec_.bits);
  }
  if (real_lower_) return lower_ + dequantize_uniform(code, scale_, 0);
  return dequantize_uniform(code, scale_, zero_);
}

float fake_quantize(float x, const QParams& params, int64_t index) {
  return Coder(params, index).fake_quantize(x);
}

int distinct_codes(const QuantSpec& spec) {
  if (const Log* log = std::get_if<Log>(&spec.format)) return log_level_count(spec.bits, *log) + 1;
  if (std::holds_alternative<Power>(spec.format)) return (1 << spec.bits) - 1;
  if (const Uniform* uniform = std::get_if<Uniform>(&spec.format)) {
    return code_range(spec.bits, *uniform).count();
  }
  return 1 << spec.bits;
}

}  // namespace repquant
