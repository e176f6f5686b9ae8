// Writing recipes, and finding those that are shipped.
#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/pipeline/recipe.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

std::string toml_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += fmt::format("\\{}", c);
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) out += fmt::format("\\u{:04X}", c);
    else out += c;
  }
  return out + "\"";
}

std::string toml_value(const FieldValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return toml_string(*text);
  std::string text = to_string(value);
  const bool integral = text.find_first_not_of("-0123456789") == std::string::npos;
  if (std::holds_alternative<double>(value) && integral) text += ".0";
  return text;
}

std::vector<fs::path> recipe_folders() {
  std::vector<fs::path> folders;
  if (const char* given = std::getenv("REPQUANT_RECIPES"); given != nullptr && *given != 0) {
    folders.emplace_back(given);
  }
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  if (!program.empty()) {
    folders.push_back(program.parent_path().parent_path() / "share" / "repquant" / "recipes");
  }
#ifdef REPQUANT_SOURCE_RECIPES
  folders.emplace_back(REPQUANT_SOURCE_RECIPES);
#endif
  return folders;
}

}  // namespace

nlohmann::json to_json(const Recipe& recipe) {
  nlohmann::json json = {{"version", 1},
                         {"scheme", to_string(recipe.scheme)},
                         {"data", {{"samples", recipe.samples}, {"seed", recipe.seed}}},
                         {"pass", nlohmann::json::array()},
                         {"layer", nlohmann::json::array()}};
  if (recipe.head_bits != 0) json["head_bits"] = recipe.head_bits;
  if (recipe.depthwise_bits != 0) json["depthwise_bits"] = recipe.depthwise_bits;
  if (recipe.granularity != "tensor") json["granularity"] = recipe.granularity;
  for (const Pass& pass : recipe.passes) {
    nlohmann::json row = {{"method", pass.method}};
    for (const auto& [key, value] : pass.options) {
      std::visit([&, &name = key](const auto& v) { row[name] = v; }, value);
    }
    json["pass"].push_back(std::move(row));
  }
  for (const LayerRule& rule : recipe.layers) {
    nlohmann::json row = {{"match", rule.match}};
    if (rule.weights != 0) row["weights"] = rule.weights;
    if (rule.activations != 0) row["activations"] = rule.activations;
    if (!rule.format.empty()) row["format"] = rule.format;
    if (!rule.levels.empty()) row["levels"] = rule.levels;
    if (!rule.granularity.empty()) row["granularity"] = rule.granularity;
    json["layer"].push_back(std::move(row));
  }
  return json;
}

std::string to_toml(const Recipe& recipe) {
  std::string text =
      fmt::format("version = 1\nscheme = {}\n", toml_string(to_string(recipe.scheme)));
  if (recipe.head_bits != 0) text += fmt::format("head_bits = {}\n", recipe.head_bits);
  if (recipe.depthwise_bits != 0)
    text += fmt::format("depthwise_bits = {}\n", recipe.depthwise_bits);
  if (recipe.granularity != "tensor")
    text += fmt::format("granularity = {}\n", toml_string(recipe.granularity));
  text += fmt::format("\n[data]\nsamples = {}\nseed = {}\n", recipe.samples, recipe.seed);
  for (const Pass& pass : recipe.passes) {
    text += fmt::format("\n[[pass]]\nmethod = {}\n", toml_string(pass.method));
    for (const auto& [key, value] : pass.options)
      text += fmt::format("{} = {}\n", key, toml_value(value));
  }
  for (const LayerRule& rule : recipe.layers) {
    text += fmt::format("\n[[layer]]\nmatch = {}\n", toml_string(rule.match));
    if (rule.weights != 0) text += fmt::format("weights = {}\n", rule.weights);
    if (rule.activations != 0) text += fmt::format("activations = {}\n", rule.activations);
    if (!rule.format.empty()) text += fmt::format("format = {}\n", toml_string(rule.format));
    if (!rule.levels.empty()) text += fmt::format("levels = {}\n", toml_string(rule.levels));
    if (!rule.granularity.empty())
      text += fmt::format("granularity = {}\n", toml_string(rule.granularity));
  }
  return text;
}

std::vector<std::string> preset_recipes() {
  std::vector<std::string> names;
  for (const fs::path& folder : recipe_folders()) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

fs::path find_preset_recipe(const std::string& name) {
  const std::vector<std::string> names = preset_recipes();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    throw Error(ErrorCode::kInvalidArgument, unknown_name("preset", name, names));
  }
  for (const fs::path& folder : recipe_folders()) {
    fs::path path = folder / (name + ".toml");
    if (fs::exists(path)) return path;
  }
  throw Error(ErrorCode::kNotFound, fmt::format("preset \"{}\": its file is gone", name));
}

}  // namespace repquant
