#include "repquant/reconstruct/clipping.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "repquant/core/format/uniform.h"
#include "repquant/quantize/fake_quantize.h"

namespace repquant::reconstruct {
namespace {

using quantize::ChannelBounds;

at::Tensor row(const std::vector<float>& values) { return at::tensor(values); }

// Dequantized folded weights, mapped back to the unfolded coordinates: Q(W diag(r)) diag(1/r).
at::Tensor rounded_weight(const at::Tensor& weight, const at::Tensor& scale,
                          const QuantSpec& spec) {
  const at::Tensor r = scale / scale.mean();
  const at::Tensor folded = (weight * r).contiguous();
  const QParams params = quantize::weight_min_max(folded, spec);
  return quantize::quantize_rows(folded, params) / r;
}

// y^ with straight-through gradients to the bounds.
struct FakeChannels : torch::autograd::Function<FakeChannels> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& y,
                            const at::Tensor& lo, const at::Tensor& hi, double steps) {
    const at::Tensor s = ((hi - lo) / steps).clamp_min(1e-8);
    const at::Tensor v = (y - lo) / s;
    const at::Tensor q = v.clamp(0, steps).round();
    ctx->save_for_backward({v, q});
    ctx->saved_data["steps"] = steps;
    return lo + s * q;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const double steps = ctx->saved_data["steps"].toDouble();
    const at::Tensor& v = saved[0];
    const at::Tensor& q = saved[1];
    const at::Tensor below = v<0, above = v> steps;
    const at::Tensor inside = at::logical_not(below.logical_or(above));
    const at::Tensor share = (v - q) / steps * inside;
    const at::Tensor dlo = (grads[0] * (share + below)).sum(0);
    const at::Tensor dhi = (grads[0] * (above.to(at::kFloat) - share)).sum(0);
    return {grads[0] * inside, dlo, dhi, at::Tensor()};
  }
};

QParams bounds_params(const ChannelBounds& bounds, int bits) {
  return quantize::channel_params(bounds, bits);
}

// Grid step 1: per channel the pair of factors with the least squared error.
ChannelBounds best_factors(const ClippingData& data, const ChannelBounds& start, ClipMode mode) {
  const at::Tensor columns = data.y.slice(0, 0, data.y.size(0) - data.held_out).t().contiguous();
  const int64_t tokens = columns.size(1);
  const double top = std::exp2(data.activation_bits) - 1;
  ChannelBounds best = start;
  constexpr int factors = 16;
  for (size_t c = 0; c < start.low.size(); ++c) {
    const float* x = columns.data_ptr<float>() + static_cast<int64_t>(c) * tokens;
    const double middle = (static_cast<double>(start.low[c]) + start.high[c]) / 2;
    const double half = (static_cast<double>(start.high[c]) - start.low[c]) / 2;
    double best_error = std::numeric_limits<double>::infinity();
    for (int i = factors - 1; i >= 0; --i) {
      for (int j = factors - 1; j >= 0; --j) {
        if (mode == ClipMode::kSymmetric && i != j) continue;
        if (mode == ClipMode::kUpper && i != factors - 1) continue;
        const double f_low = 0.5 + 0.5 * i / (factors - 1), f_high = 0.5 + 0.5 * j / (factors - 1);
        const double low = middle - half * f_low, high = middle + half * f_high;
        const UniformParams found = uniform_from_range(low, high, data.activation_bits, false);
        double error = 0;
        const float inv = inverse_scale(found.scale);
        for (int64_t t = 0; t < tokens; ++t) {
          const float v = (x[t] - static_cast<float>(low)) * inv;
          const float q = round_half_even(std::min(std::max(v, 0.0f), static_cast<float>(top)));
          const float d = x[t] - (static_cast<float>(low) + found.scale * q);
          error += static_cast<double>(d) * d;
        }
        if (error < best_error) {
          best_error = error;
          best.low[c] = static_cast<float>(low);
          best.high[c] = static_cast<float>(high);
        }
      }
    }
  }
  return best;
}

// Grid step 2: channels with a scale above mean + K std shrink about their midpoint.
ChannelBounds capped(const ChannelBounds& bounds, double deviations) {
  double sum = 0, squares = 0;
  const auto n = static_cast<double>(bounds.low.size());
  for (size_t c = 0; c < bounds.low.size(); ++c) {
    const double width = static_cast<double>(bounds.high[c]) - bounds.low[c];
    sum += width;
    squares += width * width;
  }
  const double mean = sum / n, deviation = std::sqrt(std::max(squares / n - mean * mean, 0.0));
  const double limit = mean + deviations * deviation;
  ChannelBounds result = bounds;
  for (size_t c = 0; c < bounds.low.size(); ++c) {
    const double width = static_cast<double>(bounds.high[c]) - bounds.low[c];
    if (width <= limit) continue;
    const double middle = (static_cast<double>(bounds.high[c]) + bounds.low[c]) / 2;
    result.low[c] = static_cast<float>(middle - limit / 2);
    result.high[c] = static_cast<float>(middle + limit / 2);
  }
  return result;
}

}  // namespace

double consumer_error(const ClippingData& data, const ChannelBounds& bounds, int64_t begin,
                      int64_t end) {
  const at::NoGradGuard no_grad;
  const at::Tensor y = data.y.slice(0, begin, end);
  const QParams params = bounds_params(bounds, data.activation_bits);
  const at::Tensor rounded = quantize::fake_quantize(y, params);
  const at::Tensor scale = row(params.scale);
  double total = 0;
  for (size_t j = 0; j < data.weights.size(); ++j) {
    const at::Tensor w = rounded_weight(data.weights[j], scale, data.weight_spec);
    const at::Tensor lower = row(params.lower);
    // The fold keeps W lower exact in the bias: only W (y^ - lower) is rounded.
    const at::Tensor got = at::matmul(rounded - lower, w.t()) + at::mv(data.weights[j], lower);
    const at::Tensor want = at::matmul(y, data.weights[j].t());
    const double energy = std::max(want.square().mean().item<double>(), 1e-30);
    total += (want - got).square().mean().item<double>() / energy;
  }
  return total;
}

ChannelBounds clip_grid(const ClippingData& data, const ChannelBounds& start, ClipMode mode) {
  const int64_t end = data.y.size(0) - data.held_out;
  const ChannelBounds found = best_factors(data, start, mode);
  ChannelBounds best = start;
  double best_error = consumer_error(data, start, 0, end);
  std::vector<double> caps{std::numeric_limits<double>::infinity()};
  if (mode == ClipMode::kGrid) caps.insert(caps.end(), {4.0, 3.0, 2.0, 1.5});
  for (const double k : caps) {
    const ChannelBounds candidate = std::isinf(k) ? found : capped(found, k);
    const double error = consumer_error(data, candidate, 0, end);
    if (error < best_error) {
      best_error = error;
      best = candidate;
    }
  }
  return best;
}

ChannelBounds clip_learned(const ClippingData& data, const ChannelBounds& start,
                           const LearnOptions& options) {
  const int64_t total = data.y.size(0), train = total - data.held_out;
  const at::Tensor low = row(start.low), high = row(start.high);
  const at::Tensor middle = (low + high) / 2, half = ((high - low) / 2).clamp_min(1e-8);
  const double k = 1.0 + std::exp(-4.0), steps = std::exp2(data.activation_bits) - 1;
  const at::AutoGradMode grad(true);
  at::Tensor a = at::full_like(middle, 4.0).requires_grad_(true);
  at::Tensor d = at::full_like(middle, 4.0).requires_grad_(true);
  torch::optim::Adam adam({a, d}, torch::optim::AdamOptions(options.lr));
  std::vector<at::Tensor> rounded(data.weights.size());
  ChannelBounds best = start;
  const int64_t judge = data.held_out > 0 ? train : 0;
  double best_error = consumer_error(data, start, judge, total);
  int since_best = 0;
  for (int step = 0; step < options.steps && since_best <= 100; ++step) {
    for (auto& group : adam.param_groups()) {
      group.options().set_lr(options.lr * 0.5 * (1 + std::cos(M_PI * step / options.steps)));
    }
    const at::Tensor lo = middle - half * (k * a.sigmoid()), hi = middle + half * (k * d.sigmoid());
    const at::Tensor scale = ((hi - lo) / steps).clamp_min(1e-8);
    if (step % 50 == 0) {
      for (size_t j = 0; j < rounded.size(); ++j) {
        rounded[j] = options.detach_weight
                         ? data.weights[j]
                         : rounded_weight(data.weights[j], scale.detach(), data.weight_spec);
      }
    }
    const int64_t batch = std::min(options.batch, train);
    const int64_t begin =
        train > batch ? (static_cast<int64_t>(step) * 7919 * batch / 8) % (train - batch) : 0;
    const at::Tensor y = data.y.slice(0, begin, begin + batch);
    const at::Tensor got = FakeChannels::apply(y, lo, hi, steps);
    at::Tensor loss = at::zeros({});
    for (size_t j = 0; j < rounded.size(); ++j) {
      const at::Tensor want = at::matmul(y, data.weights[j].t());
      const at::Tensor out = at::matmul(got - lo, rounded[j].t()) + at::mv(data.weights[j], lo);
      loss = loss +
             (want - out).square().mean() / std::max(want.square().mean().item<double>(), 1e-30);
    }
    adam.zero_grad();
    loss.backward();
    adam.step();
    ++since_best;
    if (step % 10 != 9) continue;
    const at::NoGradGuard no_grad;
    const at::Tensor l = (middle - half * (k * a.sigmoid())).contiguous();
    const at::Tensor h = (middle + half * (k * d.sigmoid())).contiguous();
    ChannelBounds now{{l.data_ptr<float>(), l.data_ptr<float>() + l.numel()},
                      {h.data_ptr<float>(), h.data_ptr<float>() + h.numel()}};
    for (size_t c = 0; c < now.low.size(); ++c) {
      const double width = static_cast<double>(now.high[c]) - now.low[c];
      if (width >= 1e-3 * (static_cast<double>(start.high[c]) - start.low[c])) continue;
      now.low[c] = start.low[c];
      now.high[c] = start.high[c];
    }
    const double error = consumer_error(data, now, judge, total);
    if (error < best_error) {
      best_error = error;
      best = now;
      since_best = 0;
    }
  }
  return best;
}

}  // namespace repquant::reconstruct
