#include "repquant/lower/linear_weights.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "repquant/core/error.h"
#include "repquant/core/format/uniform.h"

namespace repquant::lowering {
namespace {

struct Layer {
  Tensor weight, bias;
  QParams params;
  std::vector<int32_t> codes;  // unsigned or symmetric, as drawn
};

Layer random_layer(int bits, bool symmetric, int64_t n, int64_t k, uint32_t seed) {
  std::mt19937 random(seed);
  Layer layer{Tensor(DType::kF32, {n, k}), Tensor(DType::kF32, {n}), {}, {}};
  layer.params.spec = {bits, Uniform{symmetric, true, true}, PerChannel{0}, {}};
  const CodeRange range = code_range(bits, std::get<Uniform>(layer.params.spec.format));
  std::uniform_int_distribution<int32_t> code(range.lo, range.hi);
  std::uniform_real_distribution<float> scale(0.001f, 0.1f);
  for (int64_t i = 0; i < n; ++i) {
    layer.params.scale.push_back(scale(random));
    layer.params.zero_point.push_back(symmetric ? 0 : code(random));
    for (int64_t j = 0; j < k; ++j) {
      layer.codes.push_back(code(random));
      layer.weight.as<float>()[static_cast<size_t>(i * k + j)] = dequantize_uniform(
          layer.codes.back(), layer.params.scale.back(), layer.params.zero_point.back());
    }
    layer.bias.as<float>()[static_cast<size_t>(i)] = scale(random) * 10.0f - 0.5f;
  }
  return layer;
}

CodeFormat uniform_codes(int bits, float scale, int32_t zero) {
  CodeFormat format;
  format.bits = bits;
  format.hi = (1 << bits) - 1;
  format.scale = {scale};
  format.zero = zero;
  return format;
}

TEST(LinearWeights, RecoversTheCodes) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const bool symmetric : {false, true}) {
      const Layer layer = random_layer(bits, symmetric, 5, 31, 40u + static_cast<uint32_t>(bits));
      const LinearWeights w =
          quantized_weights(layer.weight, &layer.bias, layer.params, false, "x");
      const int32_t offset = symmetric ? 0 : 1 << (bits - 1);
      for (size_t i = 0; i < w.w.size(); ++i) ASSERT_EQ(w.w[i], layer.codes[i] - offset);
      for (size_t i = 0; i < w.zw.size(); ++i)
        ASSERT_EQ(w.zw[i], layer.params.zero_point[i] - offset);
    }
  }
}

// t*s + b with the integer t of the contract equals the product of the dequantized operands. Both
// sides in double; s and b are rounded to f32 once: 2^-24 relative on each term.
TEST(LinearWeights, ConstantsReproduceTheRealProduct) {
  std::mt19937 random(3);
  for (const bool levels : {false, true}) {
    const Layer layer = random_layer(4, false, 7, 40, 9);
    const LinearWeights w = quantized_weights(layer.weight, &layer.bias, layer.params, false, "x");
    CodeFormat input = uniform_codes(levels ? 8 : 4, 0.3f, levels ? 0 : 5);
    if (levels) {
      input.kind = CodeFormat::Kind::kLevels;
      input.log_bits = 4;
      input.shift = 0.17;
    }
    const LinearConstants c = real_constants(w, input, "x");
    for (size_t n = 0; n < 7; ++n) {
      int64_t t = c.c[n], centred = 0;
      double expected = static_cast<double>(layer.bias.as<float>()[n]), size = std::fabs(expected);
      for (size_t k = 0; k < 40; ++k) {
        const int32_t a = static_cast<int32_t>(random() % (levels ? 256 : 16));
        t += a * w.w[n * 40 + k];
        centred += a - input.zero;
        const double x = input.step() * (a - input.zero) - (levels ? 0.17 : 0.0);
        const double term = x * static_cast<double>(layer.weight.as<float>()[n * 40 + k]);
        expected += term;
        size += std::fabs(term);
      }
      t -= w.zw[n] * centred;
      const double got =
          static_cast<double>(t) * static_cast<double>(c.s[n]) + static_cast<double>(c.b[n]);
      EXPECT_NEAR(got, expected, 4.0 * size * 0x1p-24 * (levels ? 4.0 : 1.0));
    }
  }
}

TEST(LinearWeights, CodeConstantsHoldTheBiasToHalfAUnit) {
  const Layer layer = random_layer(4, true, 7, 40, 11);
  const LinearWeights w = quantized_weights(layer.weight, &layer.bias, layer.params, false, "x");
  const CodeFormat input = uniform_codes(4, 0.3f, 5), output = uniform_codes(4, 0.5f, 8);
  const auto c = code_constants(w, input, output);
  ASSERT_TRUE(c.has_value());
  for (size_t n = 0; n < 7; ++n) {
    int64_t sum = 0;
    for (size_t k = 0; k < 40; ++k) sum += w.w[n * 40 + k];
    const double unit = 0.3f * static_cast<double>(w.scale[n]);
    const double bias = static_cast<double>(c->c[n] + 5 * sum) * unit;
    EXPECT_LE(std::fabs(bias - static_cast<double>(layer.bias.as<float>()[n])),
              0.5 * unit * (1 + 1e-9));
    EXPECT_EQ(c->m[n], requantize_multiplier(0.3f, w.scale[n], 0.5f));
  }
}

TEST(LinearWeights, RefusesWeightsOffTheGrid) {
  Layer layer = random_layer(4, false, 2, 8, 5);
  layer.weight.as<float>()[9] += 0.1f * layer.params.scale[1];
  try {
    quantized_weights(layer.weight, nullptr, layer.params, false, "linear \"fc\"");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal);
    EXPECT_NE(std::string(error.what()).find("\"fc\""), std::string::npos);
  }
  EXPECT_NO_THROW(quantized_weights(layer.weight, nullptr, layer.params, true, "x"));
}

TEST(LinearWeights, TinyScaleAgainstTheBiasGoesToFloat) {
  Layer layer = random_layer(4, false, 2, 8, 5);
  layer.params.scale[1] = 1e-9f;  // a dead row: its bias is 1e9 units
  for (size_t k = 8; k < 16; ++k) layer.weight.as<float>()[k] = 0.0f;
  layer.bias.as<float>()[1] = 1.0f;
  const LinearWeights w = quantized_weights(layer.weight, &layer.bias, layer.params, false, "x");
  EXPECT_FALSE(code_constants(w, uniform_codes(4, 0.1f, 3), uniform_codes(4, 0.1f, 3)).has_value());
  EXPECT_EQ(real_constants(w, uniform_codes(4, 0.1f, 3), "x").b[1], 1.0f);
}

TEST(LinearWeights, RefusesProductsThatOverflow) {
  const int64_t k = 70000;  // 70000 * 255 * 127 > 2^31
  LinearWeights w{1, k, 8, std::vector<int8_t>(static_cast<size_t>(k), 127), {0}, {0.1f}, {0.0}};
  EXPECT_THROW(real_constants(w, uniform_codes(8, 0.1f, 0), "x"), Error);
  EXPECT_FALSE(code_constants(w, uniform_codes(8, 0.1f, 0), uniform_codes(8, 0.1f, 0)).has_value());
  EXPECT_NO_THROW(real_constants(rows_of(w, 0, 1), uniform_codes(7, 0.1f, 0), "x"));
}

}  // namespace
}  // namespace repquant::lowering
