#pragma once
// Whether a rewrite kept the float function: the output before and after on one calibration sample,
// against a bound derived from what the rewrite rounds.
#include "repquant/interpret/workspace.h"

namespace repquant::reparameterize {

// f = sum_i u_i y_i in double over all outputs y of the first sample, with fixed signs u.
//
// A rotation rounds every rewritten tensor w to f32 at most twice, each time by at most 2^-24 of an
// element; between the two it is multiplied by an orthogonal matrix, which keeps norms. So |dw| <=
// 2 2^-24 |w| in the Frobenius norm, and to first order |df| <= sum_w |df/dw| |dw|
// (Cauchy-Schwarz). A tenth more covers the second order; double rounding of f is 2^-40 sum_i |y_i|
// at most.
class OutputProbe {
 public:
  explicit OutputProbe(const Workspace& ws);  // before the rewrite

  struct Found {
    double difference = 0, bound = 0;
  };
  // Both 0 where nothing can be run: no samples, several inputs, casts to a fixed type.
  Found compare(const Workspace& ws) const;
  void check(const Workspace& ws) const;  // kInternal where the difference exceeds the bound

 private:
  WeightMap weights_;
  at::Tensor sample_;  // undefined: nothing can be run
  double before_ = 0;
};

}  // namespace repquant::reparameterize
