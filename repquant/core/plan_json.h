#pragma once
// The plan as canonical JSON: sorted keys, no spaces, so equal plans give equal text. Tensor bytes
// lie outside; each entry carries their crc32c.
#include <map>
#include <string>
#include <string_view>

#include "repquant/core/plan.h"

namespace repquant {

// Everything of the plan but tensor bytes; the provenance only as its SHA-256
// ("provenance_sha256"). Throws kInvalidArgument for text that is not UTF-8.
std::string plan_to_json(const Plan& plan);
std::string provenance_to_json(const Plan& plan);

// The inverse: `tensors` are the data named in the text, exactly those. Checks types, names and
// crc32c; the meaning is checked by verify_plan. Throws kCorruptFile.
Plan plan_from_json(std::string_view text, std::string_view provenance,
                    std::map<std::string, Tensor> tensors, const std::string& subject,
                    int depth = 64);

}  // namespace repquant
