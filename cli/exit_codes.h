#pragma once
// Exit codes of both programs (docs/cli.md).
#include "repquant/core/error.h"

namespace repquant::cli {

enum ExitCode : int {
  kDone = 0,
  kInternal = 1,
  kUsage = 2,
  kInput = 3,
  kUnsupported = 4,
  kWarnings = 5,
  kQuality = 6,
  kCapacity = 7,
  kVerifyFailed = 8,
  kInterrupted = 130,
  kTerminated = 143,
};

int exit_code(ErrorCode code);
const char* code_name(ErrorCode code);  // "corrupt_file"

}  // namespace repquant::cli
