#include "repquant/pipeline/recipe.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <iterator>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "repquant/core/error.h"
#include "repquant/core/files.h"
#include "repquant/core/strict_json.h"

namespace repquant {
namespace {

constexpr uint64_t kMaxRecipeBytes = 1 << 20;
constexpr int64_t kMaxSamples = 1'000'000;
constexpr int64_t kMaxSeed = int64_t{1} << 53;

const std::vector<std::string>& granularities() {
  static const std::vector<std::string> names{"tensor", "head"};
  return names;
}

// Keys of the recipe itself that --set takes without a dot.
bool is_recipe_key(const std::string& key) {
  return key == "scheme" || key == "head_bits" || key == "depthwise_bits" || key == "granularity";
}

// ---- one tree for both syntaxes -----------------------------------------------------------------
toml::table table_of(const nlohmann::json& json, const std::string& subject);

template <class Store>
void convert(const nlohmann::json& json, const std::string& subject, Store store);

toml::array array_of(const nlohmann::json& json, const std::string& subject) {
  toml::array array;
  for (const auto& item : json) {
    convert(item, subject,
            [&](auto&& value) { array.push_back(std::forward<decltype(value)>(value)); });
  }
  return array;
}

template <class Store>
void convert(const nlohmann::json& json, const std::string& subject, Store store) {
  if (json.is_boolean()) store(json.get<bool>());
  else if (json.is_number_integer()) store(json.get<int64_t>());
  else if (json.is_number()) store(json.get<double>());
  else if (json.is_string()) store(json.get<std::string>());
  else if (json.is_array()) store(array_of(json, subject));
  else if (json.is_object()) store(table_of(json, subject));
  else
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("recipe: {}: null is not a value", subject));
}

toml::table table_of(const nlohmann::json& json, const std::string& subject) {
  toml::table table;
  for (const auto& [key, item] : json.items()) {
    const std::string& name = key;
    convert(item, subject, [&](auto&& value) {
      table.insert_or_assign(name, std::forward<decltype(value)>(value));
    });
  }
  return table;
}

toml::table parse_tree(std::string_view text, const std::string& subject) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  try {
    if (first != std::string_view::npos && text[first] == '{') {
      return table_of(parse_strict_json(text, "recipe: " + subject), subject);
    }
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    const auto& at = error.source().begin;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("recipe: {}:{}:{}: not TOML: {}", subject, at.line, at.column,
                            printable(std::string(error.description()))));
  } catch (const Error& error) {
    throw Error(ErrorCode::kInvalidArgument, error.what(), error.hint());
  }
}

// ---- walking ------------------------------------------------------------------------------------
class Reader {
 public:
  Reader(std::string subject, const OptionsOf& options_of)
      : subject_(std::move(subject)), options_of_(options_of) {}

  void read(const toml::table& root, Recipe& recipe) {
    allow(root, {"version", "scheme", "head_bits", "depthwise_bits", "granularity", "data", "pass",
                 "layer", "budget"});
    if (const toml::node* budget = root.get("budget")) {
      fail(*budget, "[budget]: mixed precision by budget is not supported yet",
           "set bits by [[layer]] rules");
    }
    if (const toml::node* version = root.get("version");
        version && integer(*version, "version", 1, 1) != 1) {
      fail(*version, "version: expected 1");
    }
    if (const toml::node* scheme = root.get("scheme")) {
      located(*scheme, [&] { recipe.scheme = parse_scheme(text(*scheme, "scheme")); });
    }
    if (const toml::node* bits = root.get("depthwise_bits"))
      recipe.depthwise_bits = static_cast<int>(integer(*bits, "depthwise_bits", 2, 8));
    if (const toml::node* bits = root.get("head_bits")) {
      recipe.head_bits = static_cast<int>(integer(*bits, "head_bits", 2, 8));
    }
    if (const toml::node* node = root.get("granularity"))
      recipe.granularity = choice(*node, "granularity", granularities());
    if (const toml::node* data = root.get("data")) read_data(table(*data, "[data]"), recipe);
    if (const toml::node* passes = root.get("pass")) {
      recipe.passes.clear();
      for (const toml::node& item : array(*passes, "pass")) {
        recipe.passes.push_back(read_pass(table(item, "[[pass]]")));
      }
    }
    if (const toml::node* layers = root.get("layer")) {
      for (const toml::node& item : array(*layers, "layer")) {
        recipe.layers.push_back(read_layer(table(item, "[[layer]]")));
      }
    }
  }

 private:
  [[noreturn]] void fail(const toml::node& node, const std::string& message,
                         const std::string& hint = {}) const {
    const auto& at = node.source().begin;
    const std::string where = at.line > 0 ? fmt::format(":{}:{}", at.line, at.column) : "";
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("recipe: {}{}: {}", subject_, where, message), hint);
  }

  // Errors of `body` gain the position of `node`.
  template <class Body> void located(const toml::node& node, Body body) const {
    try {
      body();
    } catch (const Error& error) {
      fail(node, error.what(), error.hint());
    }
  }

  void allow(const toml::table& table, const std::vector<std::string>& keys) const {
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      if (std::find(keys.begin(), keys.end(), name) == keys.end()) {
        unknown(key, node, unknown_name("key", printable(name), keys));
      }
    }
  }

  [[noreturn]] void unknown(const toml::key& key, const toml::node& node,
                            const std::string& message) const {
    const auto& at = key.source().begin;
    if (at.line == 0) fail(node, message);
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("recipe: {}:{}:{}: {}", subject_, at.line, at.column, message));
  }

  const toml::table& table(const toml::node& node, const char* what) const {
    if (!node.is_table()) fail(node, fmt::format("{}: expected a table", what));
    return *node.as_table();
  }
  const toml::array& array(const toml::node& node, const char* what) const {
    if (!node.is_array()) fail(node, fmt::format("{}: expected [[{}]] tables", what, what));
    return *node.as_array();
  }
  std::string text(const toml::node& node, const char* what) const {
    if (!node.is_string()) fail(node, fmt::format("{}: expected a string", what));
    return node.as_string()->get();
  }
  int64_t integer(const toml::node& node, const char* what, int64_t low, int64_t high) const {
    const auto* value = node.as_integer();
    if (value == nullptr || value->get() < low || value->get() > high) {
      const std::string range =
          low == high ? fmt::format("{}", low) : fmt::format("{} to {}", low, high);
      fail(node,
           fmt::format("{}: expected {}{}", what, low == high ? "" : "an integer of ", range));
    }
    return value->get();
  }
  std::string choice(const toml::node& node, const char* what,
                     const std::vector<std::string>& names) const {
    const std::string name = text(node, what);
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      fail(node, unknown_name(what, printable(name), names));
    }
    return name;
  }

  void read_data(const toml::table& data, Recipe& recipe) const {
    allow(data, {"samples", "seed"});
    if (const auto* samples = data.get("samples")) {
      recipe.samples = integer(*samples, "samples", 1, kMaxSamples);
    }
    if (const auto* seed = data.get("seed")) {
      recipe.seed = static_cast<uint64_t>(integer(*seed, "seed", 0, kMaxSeed));
    }
  }

  Pass read_pass(const toml::table& table) const {
    const toml::node* method = table.get("method");
    if (method == nullptr) fail(table, "[[pass]]: expected a key \"method\"");
    Pass pass{text(*method, "method"), {}};
    FieldList fields;
    located(*method, [&] { fields = options_of_(pass.method); });
    std::vector<std::string> names{"method"};
    for (const Field& field : fields) names.push_back(field.name);
    allow(table, names);
    for (const Field& field : fields) {
      const toml::node* node = table.get(field.name);
      if (node == nullptr) continue;
      located(*node,
              [&] { pass.options.emplace_back(field.name, check_field(field, value(*node))); });
    }
    return pass;
  }

  FieldValue value(const toml::node& node) const {
    if (const auto* v = node.as_boolean()) return v->get();
    if (const auto* v = node.as_integer()) return v->get();
    if (const auto* v = node.as_floating_point()) {
      if (!std::isfinite(v->get())) fail(node, "expected a finite number");
      return v->get();
    }
    if (const auto* v = node.as_string()) return v->get();
    fail(node, "expected a number, a string, true or false");
  }

  LayerRule read_layer(const toml::table& table) const {
    allow(table, {"match", "weights", "activations", "format", "levels", "granularity"});
    LayerRule rule;
    const toml::node* match = table.get("match");
    if (match == nullptr) fail(table, "[[layer]]: expected a key \"match\"");
    rule.match = text(*match, "match");
    if (!is_plain_name(rule.match)) fail(*match, "match: expected 1 to 512 characters");
    if (const auto* n = table.get("weights"))
      rule.weights = static_cast<int>(integer(*n, "weights", 2, 8));
    if (const auto* n = table.get("activations")) {
      rule.activations = static_cast<int>(integer(*n, "activations", 2, 8));
    }
    if (const auto* n = table.get("format")) {
      rule.format = choice(*n, "format", {"auto", "uniform", "log2", "log_sqrt2", "log", "float"});
    }
    if (const auto* n = table.get("levels"))
      rule.levels = choice(*n, "levels", {"strict", "compat"});
    if (const auto* n = table.get("granularity"))
      rule.granularity = choice(*n, "granularity", granularities());
    return rule;
  }

  std::string subject_;
  const OptionsOf& options_of_;
};

}  // namespace

Recipe parse_recipe(std::string_view text, const std::string& subject, const OptionsOf& options_of,
                    const Recipe& base) {
  if (text.size() > kMaxRecipeBytes) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("recipe: {}: expected at most {} bytes, got {}", subject,
                            kMaxRecipeBytes, text.size()));
  }
  Recipe recipe = base;
  Reader(subject, options_of).read(parse_tree(text, subject), recipe);
  return recipe;
}

Recipe read_recipe(const std::filesystem::path& path, const OptionsOf& options_of,
                   const Recipe& base) {
  if (path == "-") {
    const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
    return parse_recipe(text, "standard input", options_of, base);
  }
  const std::vector<std::byte> bytes = read_file(path, kMaxRecipeBytes);
  return parse_recipe({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(),
                      options_of, base);
}

void apply_set(Recipe& recipe, const std::string& assignment, const OptionsOf& options_of) {
  const size_t equals = assignment.find('=');
  const std::string key = assignment.substr(0, equals);
  const size_t dot = key.find('.');
  if (equals == std::string::npos || (dot == std::string::npos && !is_recipe_key(key))) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("--set \"{}\": expected method.option=value", assignment));
  }
  const std::string value = assignment.substr(equals + 1);
  if (key == "scheme") {
    recipe.scheme = parse_scheme(value);
    return;
  }
  if (dot == std::string::npos) {
    const char* quote = key == "granularity" ? "\"" : "";
    recipe = parse_recipe(fmt::format("{} = {}{}{}\n", key, quote, value, quote), "--set",
                          options_of, recipe);
    return;
  }
  const std::string owner = key.substr(0, dot), name = key.substr(dot + 1);
  if (owner == "data") {
    recipe =
        parse_recipe(fmt::format("[data]\n{} = {}\n", name, value), "--set", options_of, recipe);
    return;
  }
  const FieldList fields = options_of(owner);
  const auto field =
      std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.name == name; });
  if (field == fields.end()) {
    std::vector<std::string> names;
    for (const Field& f : fields) names.push_back(f.name);
    throw Error(ErrorCode::kInvalidArgument, fmt::format("--set: method \"{}\": {}", owner,
                                                         unknown_name("option", name, names)));
  }
  bool used = false;
  for (Pass& pass : recipe.passes) {
    if (pass.method != owner) continue;
    used = true;
    std::erase_if(pass.options, [&](const auto& option) { return option.first == name; });
    pass.options.emplace_back(name, parse_field(*field, value));
  }
  if (used) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("--set \"{}\": no pass uses \"{}\"", assignment, owner));
}

Recipe effective_recipe(const Recipe& recipe, const OptionsOf& options_of) {
  Recipe full = recipe;
  if (full.passes.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "recipe: expected at least one [[pass]], got none",
                "pass --method NAME; `repquant methods` lists them");
  }
  for (Pass& pass : full.passes) {
    OptionValues values;
    for (const Field& field : options_of(pass.method)) {
      FieldValue value = field.default_value;
      for (const auto& [key, given] : pass.options) {
        if (key == field.name) value = check_field(field, given);
      }
      values.emplace_back(field.name, value);
    }
    pass.options = std::move(values);
  }
  return full;
}

}  // namespace repquant
