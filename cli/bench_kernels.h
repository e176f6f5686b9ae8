#pragma once
// repquant bench kernels: rows of the product families on given shapes, and of the other families on
// forms of their own, each compared with the scalar row before it is timed; products against the
// register peak of their instruction set in the same round.
#include "cli/command.h"

namespace repquant::cli {

struct KernelBench {
  std::string shapes;  // "M,K,N;M,K,N", or "families": no products; empty: common ones and families
  int64_t rounds = 15;
  double window_ms = 5;
};

// Throws kInvalidArgument for shapes that cannot be read.
Outcome bench_kernels(const KernelBench& options, const Context& context);

}  // namespace repquant::cli
