#include "repquant/reconstruct/second_order.h"

#include <algorithm>
#include <cmath>

#include "repquant/core/format/uniform.h"
#include "repquant/quantize/fake_quantize.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define REPQUANT_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define REPQUANT_CLONES
#endif

namespace repquant::reconstruct {
namespace {

// One row: rounds column after column and spreads each error over the columns to come.
REPQUANT_CLONES
void quantize_row(float* __restrict w, float* __restrict out, int64_t k, const float* __restrict u,
                  float inv, float s, float low, float high) {
  for (int64_t j = 0; j < k; ++j) {
    const float clamped = std::min(std::max(w[j] * inv, low), high);
    const float q = s * ((clamped + 12582912.0f) - 12582912.0f);
    out[j] = q;
    const float* row = u + j * k;
    const float error = (w[j] - q) / row[j];
    for (int64_t i = j + 1; i < k; ++i) w[i] -= error * row[i];
  }
}

// Upper Cholesky factor of the inverse of gram + damping; undefined when it does not exist.
at::Tensor inverse_factor(const at::Tensor& gram, double damping) {
  const int64_t k = gram.size(0);
  at::Tensor h = gram.clone();
  at::Tensor diagonal = h.diagonal();
  const at::Tensor dead = diagonal <= 0;
  diagonal.masked_fill_(dead, 1.0);
  const double mean = std::max(diagonal.mean().item<double>(), 1e-30);
  diagonal.add_(damping * mean);
  const auto [lower, failed] = at::linalg_cholesky_ex(h);
  if (failed.item<int>() != 0) return {};
  const at::Tensor inverse = at::cholesky_inverse(lower);
  const auto [upper, failed_again] = at::linalg_cholesky_ex(inverse, /*upper=*/true);
  if (failed_again.item<int>() != 0 || !at::isfinite(upper).all().item<bool>()) return {};
  REPQUANT_CHECK(upper.size(0) == k);
  return upper;
}

// One group: rows of w [N, K] from `first` on in `params`.
at::Tensor gptq_group(const at::Tensor& w, const at::Tensor& gram, const QParams& params,
                      size_t first, bool act_order, double damping, ThreadPool& pool) {
  const int64_t rows = w.size(0), k = w.size(1);
  const at::Tensor order =
      act_order ? at::argsort(gram.diagonal(), /*stable=*/true, 0, /*descending=*/true)
                : at::arange(k);
  const at::Tensor ordered = gram.index_select(0, order).index_select(1, order);
  at::Tensor upper;
  for (double d = damping; !upper.defined() && d < 1e6; d *= 10) upper = inverse_factor(ordered, d);
  if (!upper.defined()) return {};
  const at::Tensor factor = upper.to(at::kFloat).contiguous();
  const at::Tensor work = w.index_select(1, order).contiguous();
  at::Tensor rounded = at::empty_like(work);
  const CodeRange range = code_range(params.spec.bits, std::get<Uniform>(params.spec.format));
  for_each_index(pool, rows, [&](int64_t r) {
    const size_t index = first + static_cast<size_t>(r);
    const int32_t z = params.zero_point.empty() ? 0 : params.zero_point[index];
    quantize_row(work.data_ptr<float>() + r * k, rounded.data_ptr<float>() + r * k, k,
                 factor.data_ptr<float>(), inverse_scale(params.scale[index]), params.scale[index],
                 static_cast<float>(range.lo - z), static_cast<float>(range.hi - z));
  });
  at::Tensor result = at::empty_like(rounded);
  result.index_copy_(1, order, rounded);
  return result;
}

}  // namespace

at::Tensor gptq(const at::Tensor& weight, const at::Tensor& gram, const QParams& params,
                bool act_order, double damping, ThreadPool& pool) {
  const at::Tensor w = weight.reshape({weight.size(0), -1});
  const at::Tensor grams = gram.dim() == 2 ? gram.unsqueeze(0) : gram;
  const int64_t groups = grams.size(0), each = w.size(0) / groups;
  REPQUANT_CHECK(grams.size(1) == w.size(1) && each * groups == w.size(0) &&
                 static_cast<int64_t>(params.scale.size()) == w.size(0));
  at::Tensor result = quantize::quantize_rows(weight, params).reshape(w.sizes()).clone();
  for (int64_t g = 0; g < groups; ++g) {
    const at::Tensor found =
        gptq_group(w.narrow(0, g * each, each), grams[g], params, static_cast<size_t>(g * each),
                   act_order, damping, pool);
    if (found.defined()) result.narrow(0, g * each, each).copy_(found);
  }
  return result.reshape(weight.sizes());
}

Ridge ridge(const at::Tensor& gram, const at::Tensor& cross, double rho) {
  const int64_t k = gram.size(0) - 1;
  at::Tensor h = gram.clone();
  const double mean = h.diagonal().slice(0, 0, k).mean().item<double>();
  h.diagonal().slice(0, 0, k).add_(rho * std::max(mean, 1e-30));
  const at::Tensor solution = at::linalg_solve(h, cross);  // [K+1, N]
  return {solution.slice(0, 0, k).t().contiguous().to(at::kFloat),
          solution.select(0, k).contiguous().to(at::kFloat)};
}

at::Tensor bias_correction(const at::Tensor& weight, const at::Tensor& quantized,
                           const at::Tensor& mean) {
  const at::Tensor means = mean.to(at::kDouble).reshape({mean.dim() == 1 ? 1 : mean.size(0), -1});
  const at::Tensor difference = (weight - quantized).to(at::kDouble);
  std::vector<at::Tensor> moved;
  for (int64_t g = 0; g < means.size(0); ++g) {
    const int64_t each = weight.size(0) / means.size(0);
    moved.push_back(at::mv(difference.narrow(0, g * each, each).reshape({each, -1}), means[g]));
  }
  return at::cat(moved).to(at::kFloat);
}

}  // namespace repquant::reconstruct
