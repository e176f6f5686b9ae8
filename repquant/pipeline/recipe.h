#pragma once
// What a run does: scheme, calibration data, passes in order, layer rules. TOML or JSON of one
// shape (docs/cli.md, "Recipes"). Torch-free: the options of the methods come in as a function.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "repquant/core/fields.h"
#include "repquant/pipeline/scheme.h"

namespace repquant {

struct Pass {
  std::string method;
  OptionValues options;
  bool operator==(const Pass&) const = default;
};

struct Recipe {
  Scheme scheme;
  // 0: of the scheme.
  int head_bits = 0;                   // weights and input of the last linears and convolutions
  int depthwise_bits = 0;              // weights of depthwise convolutions
  std::string granularity = "tensor";  // scales of q, k and v: one a tensor or one a "head"
  int64_t samples = 32;
  uint64_t seed = 0;
  std::vector<Pass> passes;
  std::vector<LayerRule> layers;
  bool operator==(const Recipe&) const = default;
};

// The options of a method; throws kInvalidArgument for a name that does not exist.
using OptionsOf = std::function<FieldList(std::string_view method)>;

// Reads TOML, or JSON when the first character that is not white space is "{". What the text does
// not say stays as in `base`; passes replace those of `base`, layer rules follow them. Errors are
// kInvalidArgument "recipe: <subject>:<line>:<column>: ...", unknown keys with the nearest ones.
Recipe parse_recipe(std::string_view text, const std::string& subject, const OptionsOf& options_of,
                    const Recipe& base = {});
// The file `path`; "-" is standard input.
Recipe read_recipe(const std::filesystem::path& path, const OptionsOf& options_of,
                   const Recipe& base = {});

// "method.option=value" for every pass of that method, or "data.samples=N", "data.seed=N",
// "scheme=w4a4", "head_bits=8", "depthwise_bits=8", "granularity=head".
void apply_set(Recipe& recipe, const std::string& assignment, const OptionsOf& options_of);

// Every option of every pass, in the order of the method's fields, and all checks of parse_recipe.
Recipe effective_recipe(const Recipe& recipe, const OptionsOf& options_of);

// Canonical: equal recipes give equal text; parse_recipe gives back an equal recipe.
nlohmann::json to_json(const Recipe& recipe);
std::string to_toml(const Recipe& recipe);

// Shipped recipes: $REPQUANT_RECIPES, then share/repquant/recipes beside the program's folder, then
// the source tree.
std::vector<std::string> preset_recipes();                          // names, sorted
std::filesystem::path find_preset_recipe(const std::string& name);  // kInvalidArgument

}  // namespace repquant
