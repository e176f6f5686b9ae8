#pragma once
// Which preprocessing a command uses: what the user said, else what the model carries, else a
// guess.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "repquant/data/preprocess.h"

namespace repquant {

struct PreprocessRequest {
  std::string preset;                                        // empty: not given
  std::vector<std::pair<std::string, std::string>> options;  // of set_preprocess_option, in order
  std::string reason;                                        // set by choose_preprocess
};

// `item`: [C, H, W] of the model's input, -1 for unknown sizes; other ranks are arrays, whose
// preprocessing is not used. `reason` becomes "as the model has it", "preset deit for a 3x224x224
// input without metadata", ...
Preprocess choose_preprocess(PreprocessRequest& request, const std::optional<Preprocess>& of_model,
                             const std::vector<int64_t>& item);

// preprocessor_config.json in the model's folder, if there is one.
std::optional<Preprocess> preprocess_beside(const std::filesystem::path& model);

}  // namespace repquant
