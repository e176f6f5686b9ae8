#pragma once
// Error of each layer's output (linear, conv, attention) against the float model: what reports
// show.
#include <string>

#include "repquant/interpret/workspace.h"

namespace repquant::reconstruct {

bool is_layer(OpKind op);

// Sums over pairs of values, in double.
struct ErrorSums {
  double error = 0, energy = 0, got = 0, cross = 0, count = 0;  // (w - g)^2, w^2, g^2, w g, pairs
  ErrorSums& operator+=(const ErrorSums& other);
  double sqnr_db() const;  // capped where the error is 0
};
ErrorSums error_sums(const at::Tensor& want, const at::Tensor& got);  // f32, equal sizes

// ws.weights and ws.plan against ws.reference on up to `samples` calibration samples, everything
// before a layer quantized as well: rows output_mse, cosine and (unless the error is 0) sqnr_db of
// stage `stage`.
void measure_layers(Workspace& ws, const std::string& stage, int64_t samples);

// The same rows for ws.reference rounded to nearest, what any method has to beat: every target
// uniform, one scale a tensor (weights: a row), min-max ranges of these very samples behind the
// already rounded layers. Only the report changes.
void measure_plain_rounding(Workspace& ws, const std::string& stage, int64_t samples);

}  // namespace repquant::reconstruct
