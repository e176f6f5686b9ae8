#pragma once
// The style sheet of HTML reports, light and dark.
#include <string_view>

namespace repquant::report {

std::string_view style_sheet();

}  // namespace repquant::report
