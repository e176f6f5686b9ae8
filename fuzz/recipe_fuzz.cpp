// Fuzz target of the recipe parser, TOML and JSON. Refusals by Error are the expected outcome;
// whatever is accepted must mean the same after it was written and read again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "repquant/core/error.h"
#include "repquant/pipeline/recipe.h"

namespace repquant {
namespace {

// Names as the shipped recipes use them; every type of option.
FieldList options_of(std::string_view method) {
  if (method == "round_to_nearest") {
    return {{"observer", "", std::string("minmax"), {}, {"minmax", "percentile", "mse"}},
            {"weights", "", true, {}, {}},
            {"activations", "", true, {}, {}}};
  }
  if (method == "repquant") {
    return {{"tier", "", std::string("fast"), {}, {"paper", "fast", "accurate", "none"}},
            {"clip", "", std::string("tier"), {}, {"tier", "none", "percentile", "learned"}},
            {"steps", "", int64_t{0}, Between{0, 100000}, {}},
            {"damping", "", 0.01, Between{0, 10}, {}}};
  }
  if (method == "repq_vit") return {{"compat", "", false, {}, {}}};
  throw Error(ErrorCode::kInvalidArgument,
              unknown_name("method", method, {"round_to_nearest", "repquant", "repq_vit"}));
}

// The first line may be an assignment of --set: "set method.option=value".
void run(std::string_view text) {
  std::string assignment;
  if (text.starts_with("set ")) {
    const size_t end = std::min(text.find('\n'), text.size());
    assignment = text.substr(4, end - 4);
    text.remove_prefix(end);
  }
  Recipe recipe = parse_recipe(text, "fuzz", options_of);
  if (!assignment.empty()) apply_set(recipe, assignment, options_of);
  const Recipe effective = effective_recipe(recipe, options_of);
  const std::string toml = to_toml(effective);
  if (parse_recipe(toml, "toml", options_of) != effective) std::abort();
  if (parse_recipe(to_json(effective).dump(), "json", options_of) != effective) std::abort();
  if (to_toml(effective_recipe(effective, options_of)) != toml) std::abort();
}

}  // namespace
}  // namespace repquant

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    repquant::run({reinterpret_cast<const char*>(data), size});
  } catch (const repquant::Error& error) {
    if (error.code() == repquant::ErrorCode::kInternal) std::abort();
  }
  return 0;
}
