#pragma once
// Weight reconstruction in closed form: GPTQ (arXiv 2210.17323), ridge regression against
// activation error (ERQ's Aqer), bias correction.
#include "repquant/interpret/workspace.h"

namespace repquant::reconstruct {

// Second moments of a layer's input over calibration tokens, in double; a linear is one group.
struct Moments {
  at::Tensor gram;    // [groups, K, K]  sum x^T x
  at::Tensor mean;    // [groups, K]     E[x]
  int64_t count = 0;  // tokens
};

// Weights on the grid of `params` (one scale a row), chosen column by column so that
// || X (W - W^)^T || stays small. The rows of W are those of the groups of `gram` [K, K] or
// [groups, K, K], in order. `act_order`: columns by descending diagonal. damping is relative
// to the mean diagonal; it grows by 10 until the Cholesky factor exists; falls back to rounding.
at::Tensor gptq(const at::Tensor& weight, const at::Tensor& gram, const QParams& params,
                bool act_order, double damping, ThreadPool& pool);

struct Ridge {
  at::Tensor weight;  // [N, K] change of the weight
  at::Tensor bias;    // [N] change of the bias
};
// (X^^T X^ + rho mean(diag) I)^-1 X^^T (Y - X^ W^T) with a ones column for the bias (not
// regularised). cross = sum [x^, 1]^T residual, gram over [x^, 1]: [K+1, K+1], in double.
Ridge ridge(const at::Tensor& gram, const at::Tensor& cross, double rho);

// (W - W^) E[x^]: what to add to the bias after W became W^; mean [K] or [groups, K].
at::Tensor bias_correction(const at::Tensor& weight, const at::Tensor& quantized,
                           const at::Tensor& mean);

}  // namespace repquant::reconstruct
