#include "repquant/pipeline/scheme.h"

#include <algorithm>
#include <cctype>
#include <regex>

#include <fmt/format.h>

#include "repquant/core/error.h"

namespace repquant {

Scheme parse_scheme(const std::string& text) {
  std::string lower = text;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static const std::regex form("w([0-9]+)a([0-9]+)");
  std::smatch found;
  if (!std::regex_match(lower, found, form)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("scheme \"{}\": expected w<bits>a<bits>, for example w4a4", text));
  }
  Scheme scheme;
  for (const int i : {1, 2}) {
    const std::string digits = found[static_cast<size_t>(i)].str();
    const int bits = digits.size() > 2 ? 99 : std::stoi(digits);
    if (bits < 2 || bits > 8) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("scheme \"{}\": expected 2 to 8 bits, got {}", text, digits));
    }
    (i == 1 ? scheme.weight_bits : scheme.activation_bits) = bits;
  }
  return scheme;
}

std::string to_string(const Scheme& scheme) {
  return fmt::format("w{}a{}", scheme.weight_bits, scheme.activation_bits);
}

}  // namespace repquant
