#pragma once
// What only the build with the calibration half can do.
#include "cli/command.h"
#include "repquant/pipeline/recipe.h"

namespace repquant::cli {

const Parts& full_parts();
void declare_recipe(CLI::App& app, RecipeRequest& request);
// Preset, then file, then options, all defaults filled in.
Recipe resolve_recipe(const RecipeRequest& request);

}  // namespace repquant::cli
