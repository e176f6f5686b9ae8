#pragma once
#include "cli/command.h"

namespace repquant::cli {

#define REPQUANT_COMMAND(name, part, summary) Run declare_##name(CLI::App& app);
#include "cli/commands.def"
#undef REPQUANT_COMMAND

}  // namespace repquant::cli
