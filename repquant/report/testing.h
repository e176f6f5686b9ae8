#pragma once
// A run record with every part, for tests: the shape of a 12-block vision transformer.
#include <nlohmann/json.hpp>

namespace repquant::report {

nlohmann::json example_record();

}  // namespace repquant::report
