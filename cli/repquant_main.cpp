// repquant: every verb.
#include "cli/commands.h"
#include "cli/full_parts.h"

int main(int argc, char** argv) {
  using namespace repquant::cli;
  const std::vector<Command> commands{
#define REPQUANT_COMMAND(name, part, summary) {#name, summary, &declare_##name},
#include "cli/commands.def"
#undef REPQUANT_COMMAND
  };
  return run_program("repquant", commands, &full_parts(), argc, argv);
}
