// From options to an effective recipe.
#include <filesystem>

#include "cli/full_parts.h"
#include "repquant/core/error.h"
#include "repquant/pipeline/quantize.h"

namespace repquant::cli {

void declare_recipe(CLI::App& app, RecipeRequest& request) {
  const std::string group = "Recipe";
  app.add_option("--scheme", request.scheme, "w8a8, w4a8, w4a4, ... (default w8a8)")->group(group);
  app.add_option("--method", request.method, "A recipe of one pass (default repquant, tier fast)")
      ->group(group);
  app.add_option("--preset", request.preset, "A shipped recipe: repquant_w4a4, repq_vit_w4a4, ...")
      ->group(group);
  app.add_option("--recipe", request.recipe, "TOML or JSON file")->group(group);
  app.add_option("--set", request.set, "method.option=value, over the recipe")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--samples", request.samples, "Calibration samples (default 32)")
      ->check(CLI::PositiveNumber)
      ->group(group);
  app.add_option("--seed", request.seed, "Seed (default 0)")
      ->check(CLI::NonNegativeNumber)
      ->group(group);
}

Recipe resolve_recipe(const RecipeRequest& request) {
  Recipe recipe;
  const bool file = !request.preset.empty() || !request.recipe.empty();
  if (file && !request.method.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "recipe: --method: expected no --preset and no --recipe beside it",
                "change the passes in the recipe, or use --set");
  }
  if (!request.preset.empty())
    recipe = read_recipe(find_preset_recipe(request.preset), registry_options, recipe);
  if (!request.recipe.empty()) recipe = read_recipe(request.recipe, registry_options, recipe);
  if (!file) recipe.passes = {{request.method.empty() ? "repquant" : request.method, {}}};
  if (!request.scheme.empty()) recipe.scheme = parse_scheme(request.scheme);
  if (request.samples > 0) recipe.samples = request.samples;
  if (request.seed >= 0) recipe.seed = static_cast<uint64_t>(request.seed);
  for (const std::string& assignment : request.set) apply_set(recipe, assignment, registry_options);
  return effective_recipe(recipe, registry_options);
}

}  // namespace repquant::cli
