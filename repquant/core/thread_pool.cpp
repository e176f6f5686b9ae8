#include "repquant/core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

constexpr auto kSpin = std::chrono::microseconds(100);
constexpr int kMaxThreads = 1024;

// The piece this thread is running, so that nested calls run inline under the same worker index.
struct Enclosing {
  bool active = false;
  int worker = 0;
};
thread_local Enclosing enclosing;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins until done() or the budget ends; true if done. The clock is read once in a while only.
template <class Done> bool spin_until(const Done& done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// Processors the cgroup (version 2, then 1) lets this process use, rounded up; a large number if
// unlimited.
int quota_of(const char* v2, const char* v1_quota, const char* v1_period) {
  long long quota = -1, period = -1;
  if (std::FILE* file = std::fopen(v2, "re")) {
    const bool limited = std::fscanf(file, "%lld %lld", &quota, &period) == 2;
    std::fclose(file);
    if (!limited) quota = -1;
  } else {
    const auto read = [](const char* path, long long& value) {
      std::FILE* source = std::fopen(path, "re");
      if (source == nullptr) return;
      if (std::fscanf(source, "%lld", &value) != 1) value = -1;
      std::fclose(source);
    };
    read(v1_quota, quota);
    read(v1_period, period);
  }
  if (quota <= 0 || period <= 0) return kMaxThreads;
  return static_cast<int>(std::clamp<long long>((quota + period - 1) / period, 1, kMaxThreads));
}

}  // namespace

int default_thread_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (::sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
    processors = CPU_COUNT(&set);
  const int quota = quota_of("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
                             "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  return std::clamp(std::min(processors, quota), 1, kMaxThreads);
}

// One region at a time: `region` holds other callers back. A region is published by raising
// `ticket` and ends when `pending` workers have reported.
struct ThreadPool::State {
  using Body = std::function<void(int64_t, int64_t, int)>;

  std::vector<std::thread> workers;
  std::vector<std::exception_ptr> errors;  // one a piece
  std::mutex region;
  pid_t owner = ::getpid();

  std::atomic<uint64_t> ticket{0};
  std::atomic<int> pending{0};
  std::atomic<bool> stopping{false};
  std::mutex sleep;
  std::condition_variable wake, finished;

  const Body* body = nullptr;
  int64_t count = 0, piece = 0;

  void run_piece(int index) noexcept {
    const int64_t begin = std::min(count, piece * index);
    const int64_t end = std::min(count, begin + piece);
    if (begin >= end) return;
    const Enclosing outer = std::exchange(enclosing, Enclosing{true, index});
    try {
      (*body)(begin, end, index);
    } catch (...) {
      errors[static_cast<size_t>(index)] = std::current_exception();
    }
    enclosing = outer;
  }

  void work(int index) {
    uint64_t seen = 0;
    while (true) {
      const auto called = [&] { return ticket.load(std::memory_order_acquire) != seen; };
      if (!spin_until(called)) {
        std::unique_lock lock(sleep);
        wake.wait(lock, called);
      }
      seen = ticket.load(std::memory_order_acquire);
      if (stopping.load(std::memory_order_acquire)) return;
      run_piece(index);
      if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        { const std::lock_guard lock(sleep); }
        finished.notify_one();
      }
    }
  }

  void publish() {
    {
      const std::lock_guard lock(sleep);
      ticket.fetch_add(1, std::memory_order_release);
    }
    wake.notify_all();
  }

  void wait_for_workers() {
    const auto done = [&] { return pending.load(std::memory_order_acquire) == 0; };
    if (spin_until(done)) return;
    std::unique_lock lock(sleep);
    finished.wait(lock, done);
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  const int total = threads < 1 ? default_thread_count() : std::min(threads, kMaxThreads);
  state_->errors.resize(static_cast<size_t>(total));
  try {
    for (int i = 1; i < total; ++i)
      state_->workers.emplace_back([s = state_.get(), i] { s->work(i); });
  } catch (const std::system_error&) {
    // Fewer threads than asked for are still a working pool.
  }
}

ThreadPool::~ThreadPool() {
  state_->stopping.store(true, std::memory_order_release);
  state_->publish();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t, int)>& body) {
  if (count <= 0) return;
  State& state = *state_;
  grain = std::clamp<int64_t>(grain, 1, count);
  const int64_t grains = (count - 1) / grain + 1;
  const int64_t pieces = std::min<int64_t>(size(), grains);
  if (pieces == 1 || enclosing.active) {
    body(0, count, enclosing.worker < size() ? enclosing.worker : 0);
    return;
  }
  if (state.owner != ::getpid()) {
    throw Error(ErrorCode::kInvalidArgument,
                "thread pool: expected the process that made it, got a fork");
  }
  const std::lock_guard region(state.region);
  const int64_t piece = ((grains - 1) / pieces + 1) * grain;
  state.body = &body;
  state.count = count;
  state.piece = piece;
  for (std::exception_ptr& error : state.errors) error = nullptr;
  state.pending.store(static_cast<int>(state.workers.size()), std::memory_order_release);
  state.publish();
  state.run_piece(0);
  state.wait_for_workers();
  for (std::exception_ptr& error : state.errors) {
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
  }
}

}  // namespace repquant
