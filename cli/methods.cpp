// repquant methods: the registry.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/commands.h"
#include "repquant/methods/method.h"

namespace repquant::cli {
namespace {

nlohmann::json value_json(const FieldValue& value) {
  return std::visit([](const auto& v) { return nlohmann::json(v); }, value);
}

nlohmann::json field_json(const Field& field) {
  nlohmann::json row = {
      {"name", field.name}, {"help", field.help}, {"default", value_json(field.default_value)}};
  if (field.range) row["range"] = {field.range->low, field.range->high};
  if (!field.choices.empty()) row["choices"] = field.choices;
  return row;
}

std::string field_text(const Field& field) {
  std::string allowed;
  if (field.range) allowed = fmt::format("  [{:g}, {:g}]", field.range->low, field.range->high);
  if (!field.choices.empty()) allowed = fmt::format("  {{{}}}", fmt::join(field.choices, ", "));
  return fmt::format("  {:<18} {}  (default {}){}\n", field.name, field.help,
                     to_string(field.default_value), allowed);
}

nlohmann::json method_json(const Method& method, bool options) {
  nlohmann::json row = {{"name", method.name},
                        {"summary", method.summary},
                        {"reference", method.reference},
                        {"needs_data", method.needs.data},
                        {"needs_gradients", method.needs.gradients}};
  if (!options) return row;
  row["options"] = nlohmann::json::array();
  for (const Field& field : method.options()) row["options"].push_back(field_json(field));
  return row;
}

Outcome list(const std::string& name) {
  Outcome outcome;
  outcome.result["methods"] = nlohmann::json::array();
  if (!name.empty()) {
    const Method& method = find_method(name);
    outcome.result["methods"].push_back(method_json(method, true));
    outcome.text = fmt::format("{}: {}\n  {}\n\n", method.name, method.summary, method.reference);
    for (const Field& field : method.options()) outcome.text += field_text(field);
    return outcome;
  }
  for (const Method* method : methods()) {
    outcome.result["methods"].push_back(method_json(*method, false));
    outcome.text += fmt::format("{:<18} {}\n", method->name, method->summary);
  }
  return outcome;
}

}  // namespace

Run declare_methods(CLI::App& app) {
  auto name = std::make_shared<std::string>();
  app.add_option("name", *name, "Method whose options to list");
  return [name](const Context&) { return list(*name); };
}

}  // namespace repquant::cli
