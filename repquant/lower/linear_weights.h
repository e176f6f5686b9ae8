#pragma once
// Integer constants of a linear layer: codes, c, m, s, b (specification: runtime contract 3.2).
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "repquant/core/quant_spec.h"
#include "repquant/core/tensor.h"
#include "repquant/lower/code_format.h"

namespace repquant::lowering {

// Row n, column k stands for scale[n] (w[n][k] - zw[n]). Asymmetric codes are stored minus 2^(b-1).
struct LinearWeights {
  int64_t n = 0, k = 0;
  int bits = 8;
  std::vector<int8_t> w;     // [n * k]
  std::vector<int32_t> zw;   // [n], all zero when symmetric
  std::vector<float> scale;  // [n]
  std::vector<double> bias;  // [n], zeros when the layer has none
};

// Codes of `weight` (f32, [N, ...] read as [N, K]) under the site's parameters. Throws kInternal
// for a weight more than 1e-3 steps off its grid unless `round`, kUnsupported for granularities
// without a kernel.
LinearWeights quantized_weights(const Tensor& weight, const Tensor* bias, const QParams& params,
                                bool round, const std::string& subject);
LinearWeights rows_of(const LinearWeights& all, int64_t begin, int64_t end);

struct LinearConstants {
  std::vector<int32_t> c;
  std::vector<float> m;     // codes out
  std::vector<float> s, b;  // f32 out
};

// Codes out: nullopt when some c or m leaves its range (a row whose scale is tiny against its
// bias): the layer must then hand out f32.
std::optional<LinearConstants> code_constants(const LinearWeights& weights, const CodeFormat& input,
                                              const CodeFormat& output);
// f32 out. Throws kUnsupported when the 32-bit accumulator could overflow.
LinearConstants real_constants(const LinearWeights& weights, const CodeFormat& input,
                               const std::string& subject);

}  // namespace repquant::lowering
