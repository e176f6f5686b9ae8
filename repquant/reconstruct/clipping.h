#pragma once
// Per-channel dual clipping of norm outputs before the fold (docs/methods/repquant.md): a lower and
// an upper bound for every channel.
#include "repquant/quantize/range_search.h"

namespace repquant::reconstruct {

// A norm output y [tokens, C] sampled from calibration, and the float weights [N_j, C] that read
// it.
struct ClippingData {
  at::Tensor y;
  std::vector<at::Tensor> weights;
  QuantSpec weight_spec;  // how the folded weights will be rounded
  int activation_bits = 4;
  int64_t held_out = 0;  // the last rows of y, not used to learn
};

// E || W_j y - Q(W_j diag(s/s~)) y~^ ||^2 / E || W_j y ||^2, summed over consumers, on rows [begin,
// end).
double consumer_error(const ClippingData& data, const quantize::ChannelBounds& bounds,
                      int64_t begin, int64_t end);

// Per channel, factors in [0.5, 1] of the half-range with the least E[(y - y^)^2]. Upper: 16 of the
// upper bound, the lower one stays. Symmetric: 16 common ones of both bounds. Grid: 16 x 16; then a
// cap mean + K std on the scales, K in {inf, 4, 3, 2, 1.5}, least consumer error. Bounds with more
// consumer error than the start are not taken.
enum class ClipMode { kUpper, kSymmetric, kGrid };
quantize::ChannelBounds clip_grid(const ClippingData& data, const quantize::ChannelBounds& start,
                                  ClipMode mode);

struct LearnOptions {
  int steps = 200;
  double lr = 1e-2;
  int64_t batch = 1024;        // tokens
  bool detach_weight = false;  // ignore the weight error
  uint64_t seed = 0;
};
// lo = m - h k sigma(a), hi = m + h k sigma(d), k = 1/sigma(4); a = d = 4 is the start. Adam with a
// cosine rate; the step with the least held-out consumer error is kept, the start included.
quantize::ChannelBounds clip_learned(const ClippingData& data, const quantize::ChannelBounds& start,
                                     const LearnOptions& options);

}  // namespace repquant::reconstruct
