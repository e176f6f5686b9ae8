#pragma once
// Where the library reports to: it never prints. Implementations must be callable from one thread at
// a time; the library calls from the thread that called it.
#include <atomic>
#include <cstdint>
#include <string>

namespace repquant {

struct Progress {
  std::string pass;       // "pass 2/4 repquant"
  std::string unit;       // "block 7/12"
  std::string subject;    // "fc1"
  std::string detail;     // "loss 3.1e-4"
  double fraction = 0.0;  // of the whole command, 0 .. 1
};

struct FinishedLayer {    // one table row while running
  std::string layer, shape, bits;
  double sqnr_db = 0.0;
  double seconds = 0.0;
};

class Sink {
 public:
  virtual ~Sink() = default;
  virtual void progress(const Progress&) {}
  virtual void layer(const FinishedLayer&) {}
  // code: "W012"; a message appears once, the sink counts repetitions.
  virtual void warning(const std::string& code, const std::string& subject, const std::string& message,
                       const std::string& hint) = 0;
  virtual void info(const std::string& message) { (void)message; }
};

class NullSink final : public Sink {
 public:
  void warning(const std::string&, const std::string&, const std::string&, const std::string&) override {}
};

// Raised by the signal handler of the program; long loops poll it between units of work.
class StopFlag {
 public:
  void raise() noexcept { raised_.store(true, std::memory_order_relaxed); }
  void clear() noexcept { raised_.store(false, std::memory_order_relaxed); }
  bool raised() const noexcept { return raised_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> raised_{false};
};

}  // namespace repquant
