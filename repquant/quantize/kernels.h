#pragma once
// Fused fake-quantization loops over contiguous floats. The arithmetic is core/format's.
#include <cstdint>
#include <span>

namespace repquant::quantize {

// x^ = s * rne(clamp(x * inv, low, high)), low = lo - z, high = hi - z (per tensor).
void fake_uniform(const float* x, float* out, int64_t n, float inv, float s, float low, float high);
// Per channel c = i mod channels, real lower bound: x^ = lower + s * rne(clamp((x - lower)*inv, 0,
// top)).
void fake_channels(const float* x, float* out, int64_t rows, int64_t channels, const float* inv,
                   const float* s, const float* lower, float top);
// Published form: x^ = s * (clamp(rne(x / s) + zero, 0, top) - zero), zero real.
void fake_real_zero(const float* x, float* out, int64_t n, float s, float zero, float top);
// Log code: code = #{i : x + shift < thr[i]}, out = levels[code] - shift; levels has count + 1
// entries.
void fake_log(const float* x, float* out, int64_t n, float shift, const float* thr, int count,
              const float* levels);

// Sum of squared errors of the above, in double over pieces of 4096 float partial sums.
double error_uniform(const float* x, int64_t n, float inv, float s, float low, float high);
double error_log(const float* x, int64_t n, float shift, const float* thr, int count,
                 const float* levels);
// Adds the per-channel squared errors to errors[channels].
void error_channels(const float* x, int64_t rows, int64_t channels, const float* inv,
                    const float* s, const float* lower, float top, double* errors);
// counts[min(bins-1, (x - low) * inv_width)] += 1; values outside clamp to the end bins.
void add_histogram(const float* x, int64_t n, float low, float inv_width, int bins,
                   uint64_t* counts);
double sum_squares_difference(const float* a, const float* b, int64_t n);

}  // namespace repquant::quantize
