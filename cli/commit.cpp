// Alone in its file: a new commit compiles nothing else.
#include "cli/program.h"

#if __has_include("repquant_commit.h")
#include "repquant_commit.h"
#else
#define REPQUANT_COMMIT ""
#endif

namespace repquant::cli {

std::string_view commit() { return REPQUANT_COMMIT; }

}  // namespace repquant::cli
