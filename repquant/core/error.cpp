#include "repquant/core/error.h"

#include <cstring>

namespace repquant {

void check_failed(const char* file, int line, const char* expression) {
  const char* name = std::strstr(file, "repquant/");
  throw Error(ErrorCode::kInternal, std::string("internal: ") + (name ? name : file) + ":" +
                                        std::to_string(line) + ": broken invariant: " + expression);
}

}  // namespace repquant
