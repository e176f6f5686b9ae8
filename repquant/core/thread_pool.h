#pragma once
// One pool, passed in. Work is split into index ranges whose result must not depend on the split.
#include <cstdint>
#include <functional>
#include <memory>

namespace repquant {

struct ThreadPoolOptions {
  // How long an idle worker, and a caller that waits, spins before it sleeps. 0 on shared hosts.
  int spin_us = 100;
};

class ThreadPool {
 public:
  // threads < 1: default_thread_count(). The caller is one of them; fewer where the system refuses
  // to start more.
  explicit ThreadPool(int threads = 0, const ThreadPoolOptions& options = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int size() const;
  bool spins() const;  // idle workers spin before they sleep: regions are cheap
  // Calls body(begin, end, worker) over pieces that cover [0, count) once; pieces begin at
  // multiples of `grain` and are multiples of it long but the last. Every thread begins with its
  // own equal share and then takes from the others'; pieces with one `worker` (0 .. size()-1, 0 the
  // caller) never overlap in time. Returns when all are done. An exception of a body is rethrown
  // (the first by index; every piece runs). Calls from several threads queue. No allocation. Throws
  // kInvalidArgument when called from within a piece of any pool, and in the child of a fork.
  void parallel_for(int64_t count, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end, int worker)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The affinity mask of this thread, at most the quota of the control group, rounded up.
int default_thread_count();

}  // namespace repquant
