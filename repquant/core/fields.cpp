#include "repquant/core/fields.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

[[noreturn]] void bad_value(const Field& field, std::string_view got) {
  std::string want;
  if (!field.choices.empty()) want = fmt::format("one of {}", fmt::join(field.choices, ", "));
  else if (field.range)
    want = fmt::format("a number in [{}, {}]", field.range->low, field.range->high);
  else if (std::holds_alternative<bool>(field.default_value)) want = "true or false";
  else if (std::holds_alternative<int64_t>(field.default_value)) want = "an integer";
  else if (std::holds_alternative<double>(field.default_value)) want = "a number";
  else want = "a string";
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("option \"{}\": expected {}, got \"{}\"", field.name, want, got));
}

}  // namespace

std::string to_string(const FieldValue& value) {
  if (const bool* b = std::get_if<bool>(&value)) return *b ? "true" : "false";
  if (const int64_t* i = std::get_if<int64_t>(&value)) return fmt::format("{}", *i);
  if (const double* d = std::get_if<double>(&value)) return fmt::format("{}", *d);
  return std::get<std::string>(value);
}

FieldValue parse_field(const Field& field, std::string_view text) {
  const char* end = text.data() + text.size();
  if (std::holds_alternative<bool>(field.default_value)) {
    if (text == "true") return true;
    if (text == "false") return false;
    bad_value(field, text);
  }
  if (std::holds_alternative<int64_t>(field.default_value)) {
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end) bad_value(field, text);
    return check_field(field, value);
  }
  if (std::holds_alternative<double>(field.default_value)) {
    double value = 0;
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end) bad_value(field, text);
    return check_field(field, value);
  }
  return check_field(field, std::string(text));
}

FieldValue check_field(const Field& field, const FieldValue& given) {
  FieldValue value = given;
  if (std::holds_alternative<double>(field.default_value) &&
      std::holds_alternative<int64_t>(value)) {
    value = static_cast<double>(std::get<int64_t>(value));
  }
  if (value.index() != field.default_value.index()) bad_value(field, to_string(given));
  if (field.range) {
    const double v = std::holds_alternative<double>(value)
                         ? std::get<double>(value)
                         : static_cast<double>(std::get<int64_t>(value));
    if (!(v >= field.range->low && v <= field.range->high)) bad_value(field, to_string(given));
  }
  if (!field.choices.empty() &&
      std::find(field.choices.begin(), field.choices.end(), std::get<std::string>(value)) ==
          field.choices.end()) {
    bad_value(field, to_string(given));
  }
  return value;
}

std::vector<std::string> nearest(std::string_view name,
                                 const std::vector<std::string>& candidates) {
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (distance <= std::max<size_t>(2, name.size() / 2)) ranked.emplace_back(distance, candidate);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (size_t i = 0; i < ranked.size() && i < 3; ++i) names.push_back(ranked[i].second);
  return names;
}

std::string unknown_name(std::string_view what, std::string_view name,
                         const std::vector<std::string>& candidates) {
  const std::vector<std::string> near = nearest(name, candidates);
  if (near.empty()) return fmt::format("unknown {} \"{}\"", what, name);
  return fmt::format("unknown {} \"{}\"; nearest: {}", what, name, fmt::join(near, ", "));
}

FieldValue checked_value(const FieldList& fields, std::string_view owner, const std::string& key,
                         const FieldValue& value) {
  std::vector<std::string> names;
  for (const Field& field : fields) {
    if (field.name == key) return check_field(field, value);
    names.push_back(field.name);
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("method \"{}\": {}", owner, unknown_name("option", key, names)));
}

}  // namespace repquant
