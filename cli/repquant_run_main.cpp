// repquant-run: the verbs that need only an artifact.
#include "cli/commands.h"

int main(int argc, char** argv) {
  using namespace repquant::cli;
#define REPQUANT_DECLARE_artifact(name) &declare_##name
#define REPQUANT_DECLARE_full(name) nullptr
  const std::vector<Command> commands{
#define REPQUANT_COMMAND(name, part, summary) {#name, summary, REPQUANT_DECLARE_##part(name)},
#include "cli/commands.def"
#undef REPQUANT_COMMAND
  };
  return run_program("repquant-run", commands, nullptr, argc, argv);
}
