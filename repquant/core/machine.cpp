#include "repquant/core/machine.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace repquant {
namespace {

// The value of the first line of `path` that begins with one of `keys`; "" without one.
std::string first_value(const char* path, const std::vector<std::string>& keys) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    for (const std::string& key : keys) {
      if (colon == std::string::npos || !line.starts_with(key)) continue;
      const size_t begin = line.find_first_not_of(" \t", colon + 1);
      return begin == std::string::npos ? "" : line.substr(begin);
    }
  }
  return "";
}

uint64_t status_bytes(const std::string& key) {
  std::istringstream text(first_value("/proc/self/status", {key}));
  uint64_t kib = 0;
  text >> kib;
  return kib * 1024;
}

struct rusage usage() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage;
}

}  // namespace

std::string cpu_name() {
  const std::string name = first_value("/proc/cpuinfo", {"model name"});
  return name.empty() ? "unknown" : name;
}

std::vector<std::string> cpu_flags() {
  std::istringstream words(first_value("/proc/cpuinfo", {"flags", "Features"}));
  std::vector<std::string> flags;
  for (std::string word; words >> word;) flags.push_back(word);
  return flags;
}

uint64_t memory_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : 0;
}

uint64_t peak_memory_bytes() { return static_cast<uint64_t>(usage().ru_maxrss) * 1024; }

uint64_t private_memory_bytes() { return status_bytes("RssAnon"); }

uint64_t file_memory_bytes() { return status_bytes("RssFile"); }

uint64_t mapped_memory_bytes() { return status_bytes("VmData"); }

double process_cpu_seconds() {
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  const struct rusage spent = usage();
  return seconds(spent.ru_utime) + seconds(spent.ru_stime);
}

}  // namespace repquant
