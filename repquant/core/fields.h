#pragma once
// The single statement of an options struct. A struct with
//   template <class V> void visit(V&& v) { v(bits, "bits", "Bits per weight code", Between{2, 8}); ... }
// gives recipe keys, --set method.key=value, `repquant methods NAME` and the docs table.
// Field types: bool, int, double, std::string (with Choices). Errors: kInvalidArgument, naming the
// nearest key.
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace repquant {

using FieldValue = std::variant<bool, int64_t, double, std::string>;

struct Between { double low, high; };
struct Choices { std::vector<std::string> names; };

struct Field {
  std::string name, help;
  FieldValue default_value;
  std::optional<Between> range;
  std::vector<std::string> choices;
};
using FieldList = std::vector<Field>;

// Key -> value as read from a recipe or --set; unset keys keep their defaults.
using OptionValues = std::vector<std::pair<std::string, FieldValue>>;

std::string to_string(const FieldValue& value);
// Parses text by the type of the field; throws kInvalidArgument with the field's range or choices.
FieldValue parse_field(const Field& field, std::string_view text);
// Converts (int to double) and checks type, range and choices.
FieldValue check_field(const Field& field, const FieldValue& value);
// Up to three candidates close to `name` (edit distance), nearest first.
std::vector<std::string> nearest(std::string_view name, const std::vector<std::string>& candidates);
// "unknown X \"name\"; nearest: a, b" for error messages.
std::string unknown_name(std::string_view what, std::string_view name,
                         const std::vector<std::string>& candidates);

namespace fields_detail {
template <class T> FieldValue to_value(const T& v) {
  if constexpr (std::is_same_v<T, bool>) return v;
  else if constexpr (std::is_integral_v<T>) return static_cast<int64_t>(v);
  else if constexpr (std::is_floating_point_v<T>) return static_cast<double>(v);
  else return std::string(v);
}
struct Lister {
  FieldList* out;
  template <class T> void operator()(T& v, const char* name, const char* help) const {
    out->push_back({name, help, to_value(v), std::nullopt, {}});
  }
  template <class T> void operator()(T& v, const char* name, const char* help, Between range) const {
    out->push_back({name, help, to_value(v), range, {}});
  }
  template <class T> void operator()(T& v, const char* name, const char* help, Choices c) const {
    out->push_back({name, help, to_value(v), std::nullopt, std::move(c.names)});
  }
};
struct Setter {
  const std::string* key;
  const FieldValue* value;
  template <class T, class... Rest> void operator()(T& v, const char* name, const char*, Rest&&...) const {
    if (*key != name) return;
    if constexpr (std::is_same_v<T, bool>) v = std::get<bool>(*value);
    else if constexpr (std::is_integral_v<T>) v = static_cast<T>(std::get<int64_t>(*value));
    else if constexpr (std::is_floating_point_v<T>) v = static_cast<T>(std::get<double>(*value));
    else v = std::get<std::string>(*value);
  }
};
}  // namespace fields_detail

template <class Options> FieldList list_fields() {
  Options options;
  FieldList list;
  options.visit(fields_detail::Lister{&list});
  return list;
}

FieldValue checked_value(const FieldList& fields, std::string_view owner, const std::string& key,
                         const FieldValue& value);

// Defaults overwritten by `values`, in order.
template <class Options> Options read_fields(const OptionValues& values, std::string_view owner,
                                             Options options = {}) {
  const FieldList fields = list_fields<Options>();
  for (const auto& [key, raw] : values) {
    const FieldValue value = checked_value(fields, owner, key, raw);
    options.visit(fields_detail::Setter{&key, &value});
  }
  return options;
}

}  // namespace repquant
