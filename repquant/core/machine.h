#pragma once
// What the machine is, as the system tells it.
#include <cstdint>
#include <string>
#include <vector>

namespace repquant {

std::string cpu_name();                // "Genuine ... CPU"; "unknown" where the system is silent
std::vector<std::string> cpu_flags();  // "avx2", "asimd", ... in the order of the system
uint64_t memory_bytes();               // installed; 0: unknown

// Resident memory of this process: its peak so far; private pages now; pages of files (programs,
// libraries) now; private memory that is mapped, resident or not. 0 where the system is silent.
uint64_t peak_memory_bytes();
uint64_t private_memory_bytes();
uint64_t file_memory_bytes();
uint64_t mapped_memory_bytes();

double process_cpu_seconds();  // user and system time of all threads

}  // namespace repquant
