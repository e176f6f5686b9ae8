#pragma once
// The version of the project, as artifacts and reports name it.

namespace repquant {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace repquant
