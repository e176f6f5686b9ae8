#include "repquant/core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <sched.h>
#include <unistd.h>

#include "repquant/core/cpu_quota.h"
#include "repquant/core/error.h"

namespace repquant {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxGrains = std::numeric_limits<int32_t>::max();

thread_local bool inside_piece = false;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins until done() or the budget ends; true if done. The second half of the budget yields, so
// that a thread that shares the processor gets on.
template <class Done> bool spin_until(const Done& done, std::chrono::microseconds budget) {
  if (done()) return true;
  if (budget.count() <= 0) return false;
  const auto begin = std::chrono::steady_clock::now();
  while (true) {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause_cpu();
    }
    const auto spent = std::chrono::steady_clock::now() - begin;
    if (spent >= budget) return done();
    if (2 * spent >= budget) ::sched_yield();
  }
}

// What is left of one thread's share, in grains: [begin, end). The owner takes from the front,
// others from the back, each half of the rest but not less than a quarter of a whole share.
class alignas(64) Share {
 public:
  struct Range {
    int64_t begin, end;
  };
  void fill(int64_t begin, int64_t end) {
    word_.store(pack(begin, end), std::memory_order_release);
  }
  Range take(bool owner, int64_t least) {
    uint64_t word = word_.load(std::memory_order_acquire);
    while (true) {
      const Range left{static_cast<int64_t>(word >> 32), static_cast<int64_t>(word & 0xffffffffu)};
      const int64_t size = left.end - left.begin;
      if (size <= 0) return {0, 0};
      const int64_t taken = std::min(size, std::max((size + 1) / 2, least));
      const Range mine =
          owner ? Range{left.begin, left.begin + taken} : Range{left.end - taken, left.end};
      const uint64_t rest = owner ? pack(mine.end, left.end) : pack(left.begin, mine.begin);
      if (word_.compare_exchange_weak(word, rest, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
        return mine;
    }
  }

 private:
  static uint64_t pack(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(begin) << 32 | static_cast<uint64_t>(end);
  }
  std::atomic<uint64_t> word_{0};
};

// Sets a flag for the life of a scope.
class InsidePiece {
 public:
  InsidePiece() { inside_piece = true; }
  ~InsidePiece() { inside_piece = false; }
  InsidePiece(const InsidePiece&) = delete;
  InsidePiece& operator=(const InsidePiece&) = delete;
};

}  // namespace

int default_thread_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (::sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
    processors = CPU_COUNT(&set);
  return std::clamp(std::min(processors, cpu_quota()), 1, kMaxThreads);
}

// One region at a time: `region` holds other callers back. Shares are filled after all other fields
// are written; whoever takes a part of one sees them, and the region cannot end before that part is
// reported in `left`. So a worker that wakes late finds nothing to do and nobody waits for it.
struct ThreadPool::State {
  using Body = std::function<void(int64_t, int64_t, int)>;

  std::vector<std::thread> workers;
  std::vector<Share> shares;  // one a thread
  std::chrono::microseconds spin{0};
  std::mutex region;
  pid_t owner = ::getpid();

  alignas(64) std::atomic<uint32_t> ticket{0};  // raised for every region, and to stop
  std::atomic<bool> stopping{false};
  alignas(64) std::atomic<uint32_t> left{0};  // grains of the region not finished

  const Body* body = nullptr;
  int64_t count = 0, grain = 1;
  std::atomic<int64_t> least{1};  // grains taken at once, read before anything is taken
  std::mutex error_lock;
  std::exception_ptr error;
  int64_t error_at = 0;

  void run_piece(int64_t begin, int64_t end, int worker) noexcept {
    const InsidePiece inside;
    try {
      (*body)(begin, end, worker);
    } catch (...) {
      const std::lock_guard lock(error_lock);
      if (error == nullptr || begin < error_at) {
        error = std::current_exception();
        error_at = begin;
      }
    }
  }

  // Everything this thread can get: its own share, then the others'.
  void drain(int worker) {
    const size_t threads = shares.size();
    for (size_t i = 0; i < threads; ++i) {
      Share& share = shares[(static_cast<size_t>(worker) + i) % threads];
      while (true) {
        const Share::Range r = share.take(i == 0, least.load(std::memory_order_relaxed));
        if (r.begin == r.end) break;
        run_piece(r.begin * grain, std::min(count, r.end * grain), worker);
        const auto done = static_cast<uint32_t>(r.end - r.begin);
        if (left.fetch_sub(done, std::memory_order_acq_rel) == done) left.notify_one();
      }
    }
  }

  void work(int worker) {
    uint32_t seen = 0;
    while (true) {
      const auto called = [&] { return ticket.load(std::memory_order_acquire) != seen; };
      if (!spin_until(called, spin)) ticket.wait(seen, std::memory_order_acquire);
      seen = ticket.load(std::memory_order_acquire);
      if (stopping.load(std::memory_order_acquire)) return;
      drain(worker);
    }
  }

  void call() {
    ticket.fetch_add(1, std::memory_order_acq_rel);
    ticket.notify_all();
  }

  void wait_for_all() {
    const auto done = [&] { return left.load(std::memory_order_acquire) == 0; };
    if (spin_until(done, spin)) return;
    for (uint32_t now = left.load(std::memory_order_acquire); now != 0;
         now = left.load(std::memory_order_acquire))
      left.wait(now, std::memory_order_acquire);
  }

  void run(int64_t items, int64_t grains, int64_t each, const Body& work_body) {
    const auto threads = static_cast<int64_t>(shares.size());
    body = &work_body, count = items, grain = each;
    const int64_t share = (grains + threads - 1) / threads;
    least.store(std::max<int64_t>(1, (share + 3) / 4), std::memory_order_relaxed);
    left.store(static_cast<uint32_t>(grains), std::memory_order_relaxed);
    for (int64_t t = 0; t < threads; ++t)
      shares[static_cast<size_t>(t)].fill(grains * t / threads, grains * (t + 1) / threads);
    call();
    drain(0);
    wait_for_all();
  }
};

ThreadPool::ThreadPool(int threads, const ThreadPoolOptions& options)
    : state_(std::make_unique<State>()) {
  const int total = threads < 1 ? default_thread_count() : std::min(threads, kMaxThreads);
  state_->spin = std::chrono::microseconds(std::max(0, options.spin_us));
  state_->shares = std::vector<Share>(static_cast<size_t>(total));
  state_->workers.reserve(static_cast<size_t>(total));
  try {
    for (int i = 1; i < total; ++i)
      state_->workers.emplace_back([s = state_.get(), i] { s->work(i); });
  } catch (const std::system_error&) {
    // Fewer threads than asked for are still a working pool: shares without an owner are taken by
    // the others.
  }
}

ThreadPool::~ThreadPool() {
  if (state_->owner != ::getpid()) {  // the workers are not in this process
    for (std::thread& worker : state_->workers) worker.detach();
    return;
  }
  state_->stopping.store(true, std::memory_order_release);
  state_->call();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->workers.size()) + 1; }
bool ThreadPool::spins() const { return state_->spin.count() > 0; }

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t, int)>& body) {
  if (inside_piece) {
    throw Error(ErrorCode::kInvalidArgument,
                "thread pool: expected no call from within a piece of work, got a nested one",
                "split one of the two loops");
  }
  if (count <= 0) return;
  State& state = *state_;
  grain = std::clamp<int64_t>(grain, 1, count);
  if ((count - 1) / grain + 1 > kMaxGrains) grain *= ((count - 1) / grain + 1) / kMaxGrains + 1;
  const int64_t grains = (count - 1) / grain + 1;
  if (grains == 1 || size() == 1) {
    const InsidePiece inside;
    body(0, count, 0);
    return;
  }
  if (state.owner != ::getpid()) {
    throw Error(ErrorCode::kInvalidArgument,
                "thread pool: expected the process that made it, got the child of a fork",
                "make a pool of its own in the child");
  }
  const std::lock_guard region(state.region);
  state.run(count, grains, grain, body);
  if (state.error) std::rethrow_exception(std::exchange(state.error, nullptr));
}

}  // namespace repquant
