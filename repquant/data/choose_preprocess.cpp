#include "repquant/data/choose_preprocess.h"

#include <fmt/format.h>

namespace repquant {

Preprocess choose_preprocess(PreprocessRequest& request, const std::optional<Preprocess>& of_model,
                             const std::vector<int64_t>& item) {
  Preprocess chosen;
  if (!request.preset.empty()) {
    const bool file = request.preset.size() > 5 && request.preset.ends_with(".json");
    chosen = file ? preprocess_from_hugging_face(std::filesystem::path(request.preset))
                  : preset(request.preset);
    request.reason = fmt::format("preset {}", request.preset);
  } else if (of_model) {
    chosen = *of_model;
    request.reason = "as the model has it";
  } else if (item.size() == 3) {
    chosen = guess_preprocess(item[0], item[1], item[2]);
    request.reason = fmt::format("preset {} for a {}x{}x{} input without metadata", chosen.preset,
                                 item[0], item[1], item[2]);
  } else {
    request.reason = "none";
  }
  for (const auto& [key, text] : request.options) set_preprocess_option(chosen, key, text);
  if (!request.options.empty()) chosen.preset = "custom";
  check_preprocess(chosen);
  return chosen;
}

std::optional<Preprocess> preprocess_beside(const std::filesystem::path& model) {
  const std::filesystem::path path = model.parent_path() / "preprocessor_config.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return preprocess_from_hugging_face(path);
}

}  // namespace repquant
