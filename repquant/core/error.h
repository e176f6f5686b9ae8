#pragma once
// The one exception of the library, for what ends a command. Expected outcomes are std::optional;
// broken invariants are REPQUANT_CHECK.
#include <stdexcept>
#include <string>

namespace repquant {

enum class ErrorCode {
  kInvalidArgument,    // options, recipes, misuse of an interface
  kCorruptFile,        // unreadable, truncated, hostile or wrongly shaped input
  kUnsupported,        // op, format, export content, instruction set
  kNotFound,           // a path that does not exist
  kResourceExhausted,  // memory cap, disk full
  kInternal,           // a bug
  kVerifyFailed,       // digest, self-test, simulator and runtime differ
};

// what() is "stage: subject: expected ..., got ..." in lower case. hint() may be empty and says what
// to do next.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message, std::string hint = {})
      : std::runtime_error(message), code_(code), hint_(std::move(hint)) {}
  ErrorCode code() const noexcept { return code_; }
  const std::string& hint() const noexcept { return hint_; }

 private:
  ErrorCode code_;
  std::string hint_;
};

// Thrown by long work when the stop flag was raised (Ctrl-C); state has been saved before.
class Interrupted : public std::runtime_error {
 public:
  explicit Interrupted(const std::string& message) : std::runtime_error(message) {}
};

[[noreturn]] void check_failed(const char* file, int line, const char* expression);

}  // namespace repquant

#define REPQUANT_CHECK(expression)                                                    \
  do {                                                                                \
    if (!(expression)) ::repquant::check_failed(__FILE__, __LINE__, #expression);     \
  } while (false)
