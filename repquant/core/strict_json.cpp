#include "repquant/core/strict_json.h"

#include <set>
#include <vector>

#include <fmt/format.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

using nlohmann::json;

constexpr int64_t kLargestInteger = int64_t{1} << 53;

// Watches the parser: refuses before the document grows.
class Watch {
 public:
  Watch(const std::string& subject, int depth) : subject_(subject), depth_(depth) {}

  bool operator()(int, json::parse_event_t event, json& value) {
    switch (event) {
      case json::parse_event_t::object_start:
        keys_.emplace_back();
        [[fallthrough]];
      case json::parse_event_t::array_start:
        if (++open_ > depth_) refuse(fmt::format("expected at most {} levels", depth_));
        break;
      case json::parse_event_t::object_end:
        keys_.pop_back();
        [[fallthrough]];
      case json::parse_event_t::array_end:
        --open_;
        break;
      case json::parse_event_t::key: {
        const std::string& key = value.get_ref<const std::string&>();
        if (!keys_.back().insert(key).second) {
          refuse(fmt::format("expected distinct keys, got \"{}\" twice", printable(key)));
        }
        break;
      }
      case json::parse_event_t::value:
        check_integer(value);
        break;
    }
    return true;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::kCorruptFile, fmt::format("{}: json: {}", subject_, what));
  }
  void check_integer(const json& value) const {
    const bool large = value.is_number_unsigned()
                           ? value.get<uint64_t>() > static_cast<uint64_t>(kLargestInteger)
                           : value.is_number_integer() && (value.get<int64_t>() > kLargestInteger ||
                                                           value.get<int64_t>() < -kLargestInteger);
    if (large) refuse("expected integers within 2^53");
  }

  const std::string& subject_;
  int depth_;
  int open_ = 0;
  std::vector<std::set<std::string>> keys_;
};

// Length of the UTF-8 sequence at `i`, 0 if invalid (overlong, surrogate, beyond U+10FFFF).
size_t sequence_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) {
    return k < text.size() ? static_cast<unsigned>(static_cast<unsigned char>(text[k])) : 0u;
  };
  const unsigned first = byte(i);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 0;
  for (size_t k = 1; k < length; ++k) {
    if ((byte(i + k) & 0xC0u) != 0x80u) return 0;
  }
  const unsigned second = byte(i + 1);
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
      (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) {
    return 0;
  }
  return length;
}

}  // namespace

json parse_strict_json(std::string_view text, const std::string& subject, int depth) {
  try {
    return json::parse(text.begin(), text.end(), Watch(subject, depth));
  } catch (const json::exception& e) {
    // The library's own message quotes raw bytes of the file; the position is what helps.
    const auto* parse = dynamic_cast<const json::parse_error*>(&e);
    throw Error(ErrorCode::kCorruptFile,
                parse != nullptr
                    ? fmt::format("{}: json: syntax error at byte {}", subject, parse->byte)
                    : fmt::format("{}: json: a number is out of range", subject));
  }
}

bool is_plain_name(std::string_view name, size_t limit) {
  if (name.empty() || name.size() > limit) return false;
  for (size_t i = 0; i < name.size();) {
    const size_t length = sequence_length(name, i);
    const unsigned char first = static_cast<unsigned char>(name[i]);
    if (length == 0 || first < 0x20 || first == 0x7F) return false;
    if (first == 0xC2 && static_cast<unsigned char>(name[i + 1]) < 0xA0)
      return false;  // C1 controls
    i += length;
  }
  return true;
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 80)) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F || c == '"' || c == '\\') out += fmt::format("\\x{:02x}", byte);
    else out += c;
  }
  return text.size() > 80 ? out + "..." : out;
}

}  // namespace repquant
