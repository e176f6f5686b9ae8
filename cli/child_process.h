#pragma once
// A helper program that answers line by line; killed when this object goes.
#include <sys/types.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "repquant/core/progress.h"

namespace repquant::cli {

class ChildProcess {
 public:
  // `words`: program (looked up in PATH) and its arguments; `name` stands in errors. Throws
  // kUnsupported when no process can be made.
  ChildProcess(std::string name, const std::vector<std::string>& words);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  void say(const std::string& line);
  // The next line. Throws Interrupted when `stop` is raised, kUnsupported when the child ended,
  // with how it ended and the last lines of its standard error.
  std::string hear(const StopFlag* stop);

 private:
  [[noreturn]] void fail();
  std::string last_words() const;

  std::string name_, pending_;
  pid_t pid_ = -1;
  int socket_ = -1;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> errors_;
};

}  // namespace repquant::cli
