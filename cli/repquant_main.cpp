#include <malloc.h>

// repquant: every verb.
#include "cli/commands.h"
#include "cli/full_parts.h"

int main(int argc, char** argv) {
#ifdef M_TRIM_THRESHOLD
  // Tensors of a few MiB come and go: their pages stay with the process instead of being faulted in
  // again each time.
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
  using namespace repquant::cli;
  const std::vector<Command> commands{
#define REPQUANT_COMMAND(name, part, summary) {#name, summary, &declare_##name},
#include "cli/commands.def"
#undef REPQUANT_COMMAND
  };
  return run_program("repquant", commands, &full_parts(), argc, argv);
}
