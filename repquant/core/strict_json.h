#pragma once
// JSON from untrusted text: bounded depth, no duplicate keys, integers within +-2^53, valid UTF-8,
// no NaN or Infinity, nothing after the value.
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace repquant {

// Throws kCorruptFile "subject: ...".
nlohmann::json parse_strict_json(std::string_view text, const std::string& subject, int depth = 64);

// No control characters, valid UTF-8, 1 .. limit bytes: what names in files must be.
bool is_plain_name(std::string_view name, size_t limit = 512);

// The text with control characters and quotes as \xNN, at most 80 bytes: for messages that quote
// files.
std::string printable(std::string_view text);

}  // namespace repquant
