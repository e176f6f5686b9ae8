#include "repquant/quantize/fake_quantize.h"

#include <cmath>

#include "repquant/core/format/log.h"
#include "repquant/core/format/uniform.h"
#include "repquant/quantize/kernels.h"

namespace repquant::quantize {
namespace {

// Applies one quantizer, scale `index`, to a contiguous span.
void apply(const float* x, float* out, int64_t n, const QParams& params, size_t index) {
  if (const Uniform* uniform = std::get_if<Uniform>(&params.spec.format)) {
    const CodeRange range = code_range(params.spec.bits, *uniform);
    const float s = params.scale[index];
    if (uniform->compat && !params.lower.empty()) {
      fake_real_zero(x, out, n, s, -params.lower[index] / s, static_cast<float>(range.hi));
      return;
    }
    const int32_t z = params.zero_point.empty() ? 0 : params.zero_point[index];
    fake_uniform(x, out, n, inverse_scale(s), s, static_cast<float>(range.lo - z),
                 static_cast<float>(range.hi - z));
    return;
  }
  if (const Log* log = std::get_if<Log>(&params.spec.format)) {
    const LogGrid grid = log_grid(params, index);
    fake_log(x, out, n, static_cast<float>(log->shift), grid.thresholds.data(),
             static_cast<int>(grid.thresholds.size()), grid.levels.data());
    return;
  }
  throw Error(ErrorCode::kUnsupported, "quantize: activations are uniform or logarithmic");
}

// Rows of a last dimension cut into `params.scale.size()` groups.
void apply_groups(const float* x, float* out, int64_t rows, int64_t width, const QParams& params) {
  const auto groups = static_cast<int64_t>(params.scale.size());
  const int64_t size = width / groups;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      apply(x + r * width + g * size, out + r * width + g * size, size, params,
            static_cast<size_t>(g));
    }
  }
}

at::Tensor per_channel(const at::Tensor& x, const QParams& params) {
  at::Tensor out = at::empty_like(x);
  const auto channels = static_cast<int64_t>(params.scale.size());
  std::vector<float> inv(params.scale.size());
  for (size_t c = 0; c < inv.size(); ++c) inv[c] = inverse_scale(params.scale[c]);
  fake_channels(x.data_ptr<float>(), out.data_ptr<float>(), x.numel() / channels, channels,
                inv.data(), params.scale.data(), params.lower.data(),
                static_cast<float>((1 << params.spec.bits) - 1));
  return out;
}

// Row codes: rne(255 e) with e = p / max p, decoded by the sum of the row's codes (runtime law of
// 8-bit probabilities).
at::Tensor row_codes(const at::Tensor& p) {
  const at::Tensor codes = (p / p.amax(-1, true).clamp_min(1e-30) * 255.0).round();
  return codes / codes.sum(-1, true).clamp_min(1.0);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

QParams with_scale(QParams params, const at::Tensor& log_scale) {
  const at::Tensor scale = log_scale.detach().exp().contiguous();
  REPQUANT_CHECK(scale.numel() == static_cast<int64_t>(params.scale.size()));
  for (size_t i = 0; i < params.scale.size(); ++i) params.scale[i] = scale.data_ptr<float>()[i];
  return params;
}

// Sum of `t` over everything but the scale groups of the last dimension.
at::Tensor reduce_to_groups(const at::Tensor& t, int64_t groups) {
  if (groups == 1) return t.sum().reshape({1});
  return t.reshape({-1, groups, t.size(-1) / groups}).sum(at::IntArrayRef{0, 2});
}

struct LearnedUniform : torch::autograd::Function<LearnedUniform> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& log_scale,
                            const QParams* base) {
    const QParams params = with_scale(*base, log_scale);
    const at::Tensor out = fake_quantize(x, params);
    const CodeRange range = code_range(params.spec.bits, std::get<Uniform>(params.spec.format));
    const int32_t z = params.zero_point.empty() ? 0 : params.zero_point[0];
    ctx->save_for_backward({x, out, log_scale.detach().exp()});
    ctx->saved_data["low"] = static_cast<int64_t>(range.lo - z);
    ctx->saved_data["high"] = static_cast<int64_t>(range.hi - z);
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor& out = saved[1];
    const int64_t groups = saved[2].numel();
    at::Tensor s = saved[2];
    if (groups > 1) s = s.repeat_interleave(x.size(-1) / groups);
    const auto low = static_cast<double>(ctx->saved_data["low"].toInt());
    const auto high = static_cast<double>(ctx->saved_data["high"].toInt());
    const at::Tensor v = x / s;
    const at::Tensor inside = (v >= low).logical_and_(v <= high);
    const at::Tensor dx = grads[0] * inside;
    // ds = (q - z) - x/s inside, the clamp code outside; d log s = s ds.
    const at::Tensor ds = at::where(inside, out - x, out) * grads[0];
    return {dx, reduce_to_groups(ds, groups), at::Tensor()};
  }
};

struct LearnedLog : torch::autograd::Function<LearnedLog> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& log_scale,
                            const QParams* base) {
    const QParams params = with_scale(*base, log_scale);
    const at::Tensor out = fake_quantize(x, params);
    ctx->save_for_backward({x, out, log_scale.detach().exp()});
    ctx->saved_data["shift"] = std::get<Log>(params.spec.format).shift;
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const double shift = ctx->saved_data["shift"].toDouble();
    const at::Tensor x = saved[0] + shift, out = saved[1] + shift;
    const at::Tensor inside = (x <= saved[2]).logical_and_(out > 1e-12);
    const at::Tensor dx = grads[0] * inside * (out / x.clamp_min(1e-12));
    const at::Tensor ds = at::where(inside, out, (x > saved[2]) * saved[2]) * grads[0];
    return {dx, ds.sum().reshape({1}), at::Tensor()};
  }
};

}  // namespace

LogGrid log_grid(const QParams& params, size_t index) {
  const Log& log = std::get<Log>(params.spec.format);
  const int count = log_level_count(params.spec.bits, log);
  const double scale = params.scale[index];
  LogGrid grid{log_thresholds(scale, log.base, count), {}};
  for (int q = 0; q <= count; ++q) {
    grid.levels.push_back(static_cast<float>(log_value(scale, log, q, count)));
  }
  return grid;
}

at::Tensor fake_quantize(const at::Tensor& input, const QParams& params, bool heads_axis) {
  const at::Tensor x = input.detach().contiguous();
  REPQUANT_CHECK(x.scalar_type() == at::kFloat && !params.scale.empty());
  const auto* uniform = std::get_if<Uniform>(&params.spec.format);
  if (heads_axis && uniform != nullptr && params.spec.bits == 8) return row_codes(x);
  if (!params.lower.empty() && !(uniform != nullptr && uniform->compat))
    return per_channel(x, params);
  at::Tensor out = at::empty_like(x);
  const float* in = x.data_ptr<float>();
  float* to = out.data_ptr<float>();
  if (params.scale.size() == 1) {
    apply(in, to, x.numel(), params, 0);
  } else if (heads_axis) {
    const int64_t heads = x.size(-3), piece = x.size(-1) * x.size(-2);
    REPQUANT_CHECK(heads == static_cast<int64_t>(params.scale.size()));
    for (int64_t i = 0; i < x.numel() / piece; ++i) {
      apply(in + i * piece, to + i * piece, piece, params, static_cast<size_t>(i % heads));
    }
  } else {
    apply_groups(in, to, x.numel() / x.size(-1), x.size(-1), params);
  }
  return out;
}

at::Tensor fake_quantize_learned(const at::Tensor& x, const at::Tensor& log_scale,
                                 const QParams& params) {
  return LearnedUniform::apply(x, log_scale, &params);
}

at::Tensor fake_log_learned(const at::Tensor& x, const at::Tensor& log_scale,
                            const QParams& params) {
  return LearnedLog::apply(x, log_scale, &params);
}

SiteHook plan_hook(const QuantPlan& plan) {
  return [&plan](const Site& site, const at::Tensor& tensor) {
    const Assignment* assignment = plan.find(site);
    if (assignment == nullptr || assignment->role == Role::kWeight) return tensor;
    return fake_quantize(tensor, assignment->params, site.input == kProbabilities);
  };
}

at::Tensor quantize_rows(const at::Tensor& weight, const QParams& params) {
  const at::Tensor w = weight.detach().contiguous();
  at::Tensor out = at::empty_like(w);
  const int64_t rows = w.size(0), width = w.numel() / rows;
  REPQUANT_CHECK(rows == static_cast<int64_t>(params.scale.size()));
  for (int64_t r = 0; r < rows; ++r) {
    apply(w.data_ptr<float>() + r * width, out.data_ptr<float>() + r * width, width, params,
          static_cast<size_t>(r));
  }
  return out;
}

}  // namespace repquant::quantize
