#pragma once
// Bits per site: the scheme and the layer rules of a recipe. Torch-free.
#include <string>

namespace repquant {

struct Scheme {
  int weight_bits = 8, activation_bits = 8;
  bool operator==(const Scheme&) const = default;
};
Scheme parse_scheme(const std::string& text);  // "w4a8", upper or lower case; kInvalidArgument
std::string to_string(const Scheme& scheme);

// One [[layer]] rule; the last rule that matches a site wins, per field. 0 and "" leave a field
// alone.
struct LayerRule {
  std::string match;  // "re:..." regular expression or a glob over site names
  int weights = 0, activations = 0;
  std::string format, levels, granularity;
  bool operator==(const LayerRule&) const = default;
};

}  // namespace repquant
