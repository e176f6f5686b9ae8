#pragma once
// What the machine gives at this moment: the yardsticks of a benchmark round.
#include "repquant/core/thread_pool.h"
#include "repquant/runtime/kernels/isa.h"

namespace repquant::cli {

// Operations a second (a multiplication and an addition are two) of the 8-bit products of `isa` on
// registers alone, all threads of the pool together, over `seconds`. 0: no such unit.
double register_peak(runtime::Isa isa, ThreadPool& pool, double seconds);
// Bytes a second that one thread reads from memory, beyond the caches.
double read_bandwidth();
// Cycles a second of the calling thread, from a chain of multiplications. 0: unknown.
double clock_hz(double seconds);

}  // namespace repquant::cli
