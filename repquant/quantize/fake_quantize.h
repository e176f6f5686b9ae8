#pragma once
// Fake quantization of tensors by QParams: the values are those core/format defines, code for code.
#include <vector>

#include "repquant/interpret/interpreter.h"

namespace repquant::quantize {

// x of any shape. Scales: one; one a channel or head of the last dimension (count divides it); for
// probabilities [.., H, T, S] one a head (`heads_axis` = true); uniform 8-bit probabilities are row
// codes (core/plan.h). No gradient.
at::Tensor fake_quantize(const at::Tensor& x, const QParams& params, bool heads_axis = false);

// Uniform per-tensor (or per-head on the last dimension) with straight-through gradients to x and
// to `log_scale` = ln s (LSQ rule: ds = s dlog s; inside (q-z) - x/s, outside the clamp code), zero
// point and code range fixed by `params`.
at::Tensor fake_quantize_learned(const at::Tensor& x, const at::Tensor& log_scale,
                                 const QParams& params);
// Log code with gradients: inside dx^/dx = x^/x, dx^/ds = x^/s; above s: 0 and 1; zero code: both
// 0.
at::Tensor fake_log_learned(const at::Tensor& x, const at::Tensor& log_scale,
                            const QParams& params);

// Applies the plan at activation sites (weights are stored on their grid). References must outlive
// it.
SiteHook plan_hook(const QuantPlan& plan);

// Weight rows: dequantized codes of W [N, ...] with one scale a row. `codes` may be null.
at::Tensor quantize_rows(const at::Tensor& weight, const QParams& params);

// Thresholds and decoded levels (levels.size() = thresholds.size() + 1, before the shift) of a log
// site.
struct LogGrid {
  std::vector<float> thresholds, levels;
};
LogGrid log_grid(const QParams& params, size_t index);

}  // namespace repquant::quantize
