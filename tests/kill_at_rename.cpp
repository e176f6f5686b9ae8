// A program that dies like one that is killed, just before a file gets its name: linked over
// rename() by --wrap (cli/CMakeLists.txt). REPQUANT_KILL_AT_RENAME is the end of that name; without
// it everything is as it should be.
#include <csignal>
#include <cstdlib>
#include <string_view>

extern "C" int __real_rename(const char* from, const char* to);
extern "C" int __wrap_rename(const char* from, const char* to);
extern "C" int __wrap_rename(const char* from, const char* to) {
  const char* name = std::getenv("REPQUANT_KILL_AT_RENAME");
  if (name != nullptr && std::string_view(to).ends_with(name)) std::raise(SIGKILL);
  return __real_rename(from, to);
}
