#pragma once
// One pool, passed in. Work is split into index ranges whose result must not depend on the split.
#include <cstdint>
#include <functional>
#include <memory>

namespace repquant {

class ThreadPool {
 public:
  // threads < 1: the affinity mask, at most the cgroup quota rounded up. The caller is one of them.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int size() const;
  // Calls body(begin, end, worker) over contiguous pieces of [0, count), at most size() of them, each
  // a multiple of `grain` long but the last; returns when all are done. An exception of a body is
  // rethrown (the first by piece). Nested calls run inline on the caller. No allocation.
  void parallel_for(int64_t count, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end, int worker)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

int default_thread_count();

}  // namespace repquant
