#include "repquant/quantize/fake_quantize.h"

#include <set>

#include <gtest/gtest.h>

#include "repquant/core/format/format.h"
#include "repquant/core/format/uniform.h"

namespace repquant::quantize {
namespace {

QParams uniform(int bits, double low, double high) {
  const UniformParams found = uniform_from_range(low, high, bits, true);
  return {{bits, Uniform{}, PerTensor{}, Range{}}, {found.scale}, {found.zero}, {}};
}

QParams logarithmic(int bits, double base, double shift, int table_bits, float scale) {
  return {{bits, Log{base, shift, table_bits, false}, PerTensor{}, Range{}}, {scale}, {}, {}};
}

TEST(FakeQuantize, EqualsTheScalarLawBitForBit) {
  torch::manual_seed(1);
  const at::Tensor x = at::randn({4099}) * 3;
  std::vector<QParams> all;
  for (int bits = 2; bits <= 8; ++bits) {
    all.push_back(uniform(bits, -2.5, 4.0));
    all.push_back(logarithmic(bits, 2.0, 0.17, 8, 2.0f));
  }
  all.push_back(logarithmic(5, 2.0, 0.0, 16, 1.0f));
  for (const QParams& params : all) {
    const at::Tensor got = fake_quantize(x, params);
    for (int64_t i = 0; i < x.numel(); ++i) {
      ASSERT_EQ(got.data_ptr<float>()[i],
                repquant::fake_quantize(x.data_ptr<float>()[i], params, 0))
          << to_string(params.spec) << " at " << x.data_ptr<float>()[i];
    }
  }
}

TEST(FakeQuantize, StrictCodesAreAtMostTwoToTheBits) {
  torch::manual_seed(2);
  const at::Tensor x = at::randn({200'000}).abs();
  for (int bits = 2; bits <= 8; ++bits) {
    for (const QParams& params : {uniform(bits, -1, 3), logarithmic(bits, 2.0, 0.0, 8, 2.0f),
                                  logarithmic(bits, 1.0, 0.0, 16, 2.0f)}) {
      const at::Tensor got = fake_quantize(x, params);
      const std::set<float> distinct(got.data_ptr<float>(), got.data_ptr<float>() + got.numel());
      EXPECT_LE(distinct.size(), size_t{1} << bits) << to_string(params.spec);
    }
  }
}

TEST(FakeQuantize, CompatHasOneLevelMore) {
  QParams params = logarithmic(4, 2.0, 0.0, 0, 1.0f);
  std::get<Log>(params.spec.format).compat = true;
  const at::Tensor got = fake_quantize(at::logspace(-4, 0, 100'000, 10), params);
  const std::set<float> distinct(got.data_ptr<float>(), got.data_ptr<float>() + got.numel());
  EXPECT_EQ(distinct.size(), 17u);
  QParams real_zero{
      {4, Uniform{false, true, true, true}, PerTensor{}, Range{}}, {0.5f}, {}, {-0.5f * 7.4f}};
  const at::Tensor uniform_got = fake_quantize(at::linspace(-10, 10, 10'001), real_zero);
  const std::set<float> uniform_distinct(uniform_got.data_ptr<float>(),
                                         uniform_got.data_ptr<float>() + uniform_got.numel());
  EXPECT_EQ(uniform_distinct.size(), 17u);
}

// Channels before a fold: all 2^b levels from a real lower bound up, half a step of error inside.
TEST(FakeQuantize, ChannelsUseTheirOwnBounds) {
  const std::vector<float> lower{-1.5f, 0.3f, -7.0f}, scale{0.2f, 0.01f, 1.0f};
  const QParams params{{4, Uniform{}, PerChannel{-1}, Range{}}, scale, {}, lower};
  const at::Tensor sweep = at::linspace(-0.25, 1.25, 3001);  // of the range of each channel
  const at::Tensor low = at::tensor(lower), step = at::tensor(scale);
  const at::Tensor x = low + sweep.unsqueeze(1) * (15 * step);
  const at::Tensor got = fake_quantize(x, params);
  for (int64_t c = 0; c < 3; ++c) {
    const auto i = static_cast<size_t>(c);
    const at::Tensor levels = std::get<0>(at::_unique(got.select(1, c).contiguous()));
    ASSERT_EQ(levels.numel(), 16) << c;
    EXPECT_EQ(levels[0].item<float>(), lower[i]);
    EXPECT_EQ(levels[15].item<float>(), lower[i] + scale[i] * 15.0f);
  }
  const at::Tensor inside = (sweep >= 0).logical_and(sweep <= 1).nonzero().squeeze(1);
  const at::Tensor error = (got - x).abs().index_select(0, inside);
  // x - lower is rounded: one unit in the last place of 8, relative to the smallest step.
  EXPECT_TRUE((error <= step * 0.5 + 1e-6).all().item<bool>());
}

TEST(FakeQuantize, HeadsUseTheirOwnScale) {
  QParams params = uniform(4, -1, 1);
  params.scale = {params.scale[0], params.scale[0] * 2};
  params.zero_point = {params.zero_point[0], params.zero_point[0]};
  const at::Tensor x = at::randn({3, 8});
  const at::Tensor got = fake_quantize(x, params);
  QParams second = params;
  second.scale = {params.scale[1]};
  second.zero_point = {params.zero_point[1]};
  EXPECT_TRUE(at::equal(got.slice(1, 4, 8), fake_quantize(x.slice(1, 4, 8), second)));
}

TEST(FakeQuantize, RowCodesSumToOne) {
  const at::Tensor p = at::softmax(at::randn({2, 3, 5, 40}) * 4, -1);
  const QParams params{{8, Uniform{}, PerTensor{}, Range{}}, {1.0f / 255}, {0}, {}};
  const at::Tensor sums = fake_quantize(p, params, true).sum(-1);
  EXPECT_LE((sums - 1).abs().max().item<float>(), 40 * 6e-8f);  // one rounding a key
}

TEST(FakeQuantizeLearned, GradientsMatchTheTable) {
  const QParams params = uniform(4, -1.0, 1.0);
  const at::Tensor x = at::tensor({-5.0f, 0.33f, 5.0f}).requires_grad_(true);
  const at::Tensor log_scale = at::tensor({params.scale[0]}).log().requires_grad_(true);
  const at::Tensor out = fake_quantize_learned(x, log_scale, params);
  EXPECT_TRUE(at::allclose(out, fake_quantize(x, params), 1e-6, 1e-7));
  out.sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), at::tensor({0.0f, 1.0f, 0.0f})));
  // Outside: s times the clamp code; inside: x^ - x.
  const float s = params.scale[0], z = static_cast<float>(params.zero_point[0]);
  const float expected = s * (0 - z) + (out[1].item<float>() - 0.33f) + s * (15 - z);
  EXPECT_NEAR(log_scale.grad().item<float>(), expected, 1e-5);
}

TEST(QuantizeRows, IsIdempotent) {
  const at::Tensor w = at::randn({3, 40});
  QParams params{{3, Uniform{}, PerChannel{0}, Range{}}, {}, {}, {}};
  for (int r = 0; r < 3; ++r) {
    const UniformParams found = uniform_from_range(-1.5 - r, 2.0, 3, true);
    params.scale.push_back(found.scale);
    params.zero_point.push_back(found.zero);
  }
  const at::Tensor once = quantize_rows(w, params);
  EXPECT_TRUE(at::equal(once, quantize_rows(once, params)));
}

}  // namespace
}  // namespace repquant::quantize
