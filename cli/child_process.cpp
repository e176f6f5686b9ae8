#include "cli/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "repquant/core/error.h"

namespace repquant::cli {
namespace {

constexpr int kPollMs = 100;
constexpr size_t kLastBytes = 4096, kLastLines = 3, kLastColumns = 300;

}  // namespace

ChildProcess::ChildProcess(std::string name, const std::vector<std::string>& words)
    : name_(std::move(name)), errors_(std::tmpfile(), std::fclose) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  int ends[2] = {-1, -1};
  if (errors_ == nullptr || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw Error(ErrorCode::kResourceExhausted, "bench: " + name_ + ": no room for a process");
  const int errors = ::fileno(errors_.get());
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // it ended before prctl
    ::dup2(ends[1], STDIN_FILENO);
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(errors, STDERR_FILENO);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  socket_ = ends[0];
  if (pid_ < 0) {
    ::close(socket_);
    throw Error(ErrorCode::kResourceExhausted, "bench: " + name_ + ": no room for a process");
  }
}

ChildProcess::~ChildProcess() {
  ::close(socket_);
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void ChildProcess::say(const std::string& line) {
  const std::string text = line + "\n";
  // Not delivered: it has ended, which hear() finds.
  (void)::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
}

std::string ChildProcess::hear(const StopFlag* stop) {
  for (;;) {
    if (const size_t end = pending_.find('\n'); end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return line;
    }
    if (stop != nullptr && stop->raised()) throw Interrupted("bench: interrupted");
    struct pollfd ready {
      socket_, POLLIN, 0
    };
    if (::poll(&ready, 1, kPollMs) <= 0) continue;
    char buffer[4096];
    const ssize_t got = ::recv(socket_, buffer, sizeof(buffer), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail();
    pending_.append(buffer, static_cast<size_t>(got));
  }
}

std::string ChildProcess::last_words() const {
  std::string text(kLastBytes, '\0');
  const int file = ::fileno(errors_.get());
  const off_t size = ::lseek(file, 0, SEEK_END);
  const off_t begin = std::max<off_t>(0, size - static_cast<off_t>(kLastBytes));
  const ssize_t got = ::pread(file, text.data(), text.size(), begin);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) lines.push_back(text.substr(at, std::min(end - at, kLastColumns)));
    at = end + 1;
  }
  std::string joined;
  for (size_t i = lines.size() - std::min(lines.size(), kLastLines); i < lines.size(); ++i)
    joined += (joined.empty() ? "" : " | ") + lines[i];
  return joined;
}

void ChildProcess::fail() {
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  std::string how = WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                                        : fmt::format("exit code {}", WEXITSTATUS(status));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) how = "no such program";
  const std::string words = last_words();
  throw Error(ErrorCode::kUnsupported,
              fmt::format("bench: {}: the contender ended: {}", name_, how),
              words.empty() ? "" : "it said: " + words);
}

}  // namespace repquant::cli
