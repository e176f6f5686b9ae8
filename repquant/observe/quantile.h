#pragma once
// Exact order statistics of any amount of data in constant memory, by radix selection over repeated
// passes: histograms of the leading bits, then of the next bits inside the bins that hold the
// wanted ranks.
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace repquant::observe {

// Calls fn(values, count) for each piece of the data, in any order but the same data every time.
// values[i] belongs to channel i % channels. Pieces may come from several threads at once when
// `slot` differs.
struct DataPass {
  int64_t pieces = 1;
  // Calls fn(slot, values) once per piece; slot in [0, pieces).
  std::function<void(const std::function<void(int64_t slot, std::span<const float>)>&)> run;
};

// quantile p of every channel, linear interpolation at index p (n-1) of the sorted values.
// Returns [channels][probabilities.size()], row-major. NaN in the data throws kCorruptFile.
std::vector<float> exact_quantiles(const DataPass& data, int64_t channels,
                                   std::span<const double> probabilities);

}  // namespace repquant::observe
