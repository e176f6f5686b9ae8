#pragma once
// What to do to one tensor. Plain values: copyable, comparable, serialisable. The arithmetic of each
// format lies in core/format.
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace repquant {

// ---- granularity: which elements share one scale ------------------------------------------------
struct PerTensor { bool operator==(const PerTensor&) const = default; };
struct PerChannel { int axis = 0; bool operator==(const PerChannel&) const = default; };
struct PerHead { int heads = 1; bool operator==(const PerHead&) const = default; };
struct PerGroup { int size = 128; bool operator==(const PerGroup&) const = default; };  // along the last axis
struct PerToken { bool operator==(const PerToken&) const = default; };                  // dynamic, one a row
using Granularity = std::variant<PerTensor, PerChannel, PerHead, PerGroup, PerToken>;

// ---- format: what a code means ------------------------------------------------------------------
// x^ = s (q - z). Unsigned codes 0 .. 2^b - 1 with zero point z; symmetric: signed codes, z = 0,
// narrow drops the lowest code.
struct Uniform {
  bool symmetric = false;
  bool narrow = true;         // only read when symmetric
  bool include_zero = true;   // widen the range to contain 0, so that z lies in [0, 2^b - 1]
  bool compat = false;        // published code's real zero point -lower/scale: simulation only
  bool operator==(const Uniform&) const = default;
};

// x^ + shift = s 2^(-q/B), the last code means exactly 0. B = 1: log2, B = 2: log-sqrt2, B = 37/k:
// AdaLog. `compat` keeps one more symbol, 2^b + 1 outputs, as published code does: simulation only.
// With table_bits = 8 the level is s L[q]/255, L[q] = rne(255 2^(-q/B)), L[zero] = 0, the law of what
// runs; 16: levels of 2^14; 0: the exact power (parity and shift kernels, compat).
struct Log {
  double base = 2.0;          // B: codes an octave
  double shift = 0.0;         // added to x before coding (0.16997124 for GELU outputs)
  int table_bits = 8;
  bool compat = false;
  bool operator==(const Log&) const = default;
};

// PTQ4ViT's twin-uniform: one code bit selects one of two uniform grids, the low step is
// high step * 2^-m.
struct Twin {
  bool gelu = false;          // signed grid with separate steps for x >= 0 and x < 0
  int m = 0;
  bool operator==(const Twin&) const = default;
};

// PowerQuant: q = sign(w) rne(Q (|w|/M)^a).
struct Power {
  double exponent = 1.0;
  bool operator==(const Power&) const = default;
};

using Format = std::variant<Uniform, Log, Twin, Power>;

// ---- range: how the bounds were, or are to be, found --------------------------------------------
enum class RangeMethod { kMinMax, kPercentile, kMse, kOutput, kLearned, kGrid, kFixed };
struct Range {
  RangeMethod method = RangeMethod::kPercentile;
  bool operator==(const Range&) const = default;
};

struct QuantSpec {
  int bits = 8;               // 2 .. 8
  Format format = Uniform{};
  Granularity granularity = PerTensor{};
  Range range;
  bool operator==(const QuantSpec&) const = default;
};

// What calibration leaves. Vectors hold 1 element (tensor), or one a channel, head or group.
// `lower` is set (and zero_point empty) only for per-channel activation sites before the fold:
// x^ = lower + s q with a real lower bound, which no kernel executes.
struct QParams {
  QuantSpec spec;
  std::vector<float> scale;
  std::vector<int32_t> zero_point;
  std::vector<float> lower;
  bool operator==(const QParams&) const = default;
};

std::string to_string(const QuantSpec& spec);  // "u4 per-tensor uniform", for reports

}  // namespace repquant
