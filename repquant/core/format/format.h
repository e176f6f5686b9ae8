#pragma once
// The meaning of a whole QParams on one value: what simulation, export checks and tests refer to.
#include <cstdint>
#include <vector>

#include "repquant/core/quant_spec.h"

namespace repquant {

// One scale of a QParams, prepared. Codes: Uniform: the integer of code_range. Log: 0 .. K, K means
// 0. Twin: see twin.h. Power: signed.
class Coder {
 public:
  Coder(const QParams& params, int64_t index);
  int32_t encode(float x) const;
  float decode(int32_t code) const;
  float fake_quantize(float x) const { return decode(encode(x)); }
  int32_t lowest() const { return lowest_; }    // every code lies in [lowest, highest]
  int32_t highest() const { return highest_; }

 private:
  QuantSpec spec_;
  float scale_ = 1.0f, inverse_ = 1.0f, lower_ = 0.0f;
  int32_t zero_ = 0, lowest_ = 0, highest_ = 0;
  bool real_lower_ = false;
  std::vector<float> thresholds_;
};

// decode(encode(x)) under scale `index` of `params` (vectors of length 1 serve every index).
float fake_quantize(float x, const QParams& params, int64_t index = 0);

// How many codes the format has: at most 2^bits, one more for a compat log.
int distinct_codes(const QuantSpec& spec);

}  // namespace repquant
