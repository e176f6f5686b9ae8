#include "repquant/reconstruct/second_order.h"

#include <gtest/gtest.h>

#include "repquant/quantize/fake_quantize.h"
#include "repquant/quantize/range_search.h"

namespace repquant::reconstruct {
namespace {

const QuantSpec kFourBits{4, Uniform{}, PerChannel{0}, Range{}};

TEST(Gptq, WithUncorrelatedInputsIsRoundToNearest) {
  torch::manual_seed(3);
  ThreadPool pool(1);
  const at::Tensor w = at::randn({16, 32});
  const QParams params = quantize::weight_min_max(w, kFourBits);
  const at::Tensor got = gptq(w, at::eye(32, at::kDouble), params, true, 0.0, pool);
  EXPECT_TRUE(at::equal(got, quantize::quantize_rows(w, params)));
}

TEST(Gptq, BeatsRoundToNearestOnCorrelatedInputs) {
  torch::manual_seed(4);
  ThreadPool pool(2);
  const at::Tensor mix = at::randn({48, 48}, at::kDouble) + 4 * at::ones({48, 1}, at::kDouble);
  const at::Tensor x = at::mm(at::randn({4000, 48}, at::kDouble), mix);  // condition number > 100
  const at::Tensor gram = at::mm(x.t(), x);
  const at::Tensor w = at::randn({200, 48});
  const QParams params = quantize::weight_min_max(w, kFourBits);
  const auto errors = [&](const at::Tensor& rounded) {
    const at::Tensor d = (w - rounded).to(at::kDouble);
    return (at::mm(d, gram) * d).sum(1);
  };
  const at::Tensor better =
      errors(gptq(w, gram, params, true, 0.01, pool)) < errors(quantize::quantize_rows(w, params));
  EXPECT_GE(better.sum().item<int64_t>(), 190);  // 95 % of rows
}

TEST(Gptq, StaysOnItsGridWithDeadInputsAndAnyThreads) {
  torch::manual_seed(5);
  ThreadPool one(1), three(3);
  at::Tensor x = at::randn({500, 24}, at::kDouble);
  x.select(1, 7).zero_();
  const at::Tensor gram = at::mm(x.t(), x), w = at::randn({31, 24});
  const QParams params = quantize::weight_min_max(w, kFourBits);
  const at::Tensor got = gptq(w, gram, params, true, 0.01, one);
  EXPECT_TRUE(at::equal(got, quantize::quantize_rows(got, params)));
  EXPECT_TRUE(at::equal(got, gptq(w, gram, params, true, 0.01, three)));
}

TEST(Ridge, ResidualIsOrthogonalAtZeroAndVanishesAtInfinity) {
  torch::manual_seed(6);
  const at::Tensor x =
      at::cat({at::randn({300, 10}, at::kDouble), at::ones({300, 1}, at::kDouble)}, 1);
  const at::Tensor y = at::randn({300, 4}, at::kDouble);
  const at::Tensor gram = at::mm(x.t(), x), cross = at::mm(x.t(), y);
  const Ridge exact = ridge(gram, cross, 0.0);
  const at::Tensor fitted =
      at::mm(x.slice(1, 0, 10), exact.weight.t().to(at::kDouble)) + exact.bias.to(at::kDouble);
  const at::Tensor left = at::mm(x.t(), y - fitted);
  // The solution is rounded to f32 once: 2^-24 relative of sums of 300 unit products.
  EXPECT_LE(left.norm().item<double>(), 1e-6 * x.norm().item<double>() * y.norm().item<double>());
  EXPECT_LE(ridge(gram, cross, 1e12).weight.abs().max().item<float>(), 1e-9f);
}

TEST(BiasCorrection, MakesTheMeanErrorZero) {
  torch::manual_seed(7);
  const at::Tensor x = at::randn({1000, 20}) + 1.5, w = at::randn({6, 20});
  const at::Tensor rounded = quantize::quantize_rows(w, quantize::weight_min_max(w, kFourBits));
  const at::Tensor fix = bias_correction(w, rounded, x.mean(0, false, at::kDouble));
  const at::Tensor error = (at::mm(x, w.t()) - at::mm(x, rounded.t()) - fix).mean(0);
  EXPECT_LE(error.abs().max().item<float>(), 1e-5f);  // f32 rounding of 20 products, averaged
}

}  // namespace
}  // namespace repquant::reconstruct
