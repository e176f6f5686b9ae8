#include "repquant/core/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace {
std::atomic<int64_t> allocations{0};
}

#ifndef __SANITIZE_ADDRESS__   // which brings its own and checks that they match
// GCC pairs the free() below with its own operator new, not with the one above it.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
// Counts every allocation of this test program.
void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
#endif

namespace repquant {
namespace {

TEST(ThreadPool, EveryIndexOnceInGrains) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int64_t count : {0, 1, 2, 5, 64, 1000}) {
      for (const int64_t grain : {1, 4, 16, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        std::atomic<int> pieces{0};
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int worker) {
          ++pieces;
          EXPECT_LT(begin, end);
          EXPECT_EQ(begin % grain, 0);
          EXPECT_TRUE(end == count || (end - begin) % grain == 0);
          EXPECT_GE(worker, 0);
          EXPECT_LT(worker, threads);
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        for (const std::atomic<int>& n : seen) EXPECT_EQ(n.load(), 1);
        EXPECT_LE(pieces.load(), threads);
      }
    }
  }
}

TEST(ThreadPool, WorkersAreDistinct) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> used(4);
  pool.parallel_for(4, 1,
                    [&](int64_t, int64_t, int worker) { ++used[static_cast<size_t>(worker)]; });
  for (const std::atomic<int>& n : used) EXPECT_EQ(n.load(), 1);
}

TEST(ThreadPool, TheFirstExceptionByPieceIsRethrown) {
  ThreadPool pool(4);
  for (int round = 0; round < 50; ++round) {
    try {
      pool.parallel_for(4, 1, [](int64_t begin, int64_t, int) {
        if (begin >= 1) throw std::runtime_error(std::to_string(begin));
      });
      FAIL();
    } catch (const std::runtime_error& e) {
      EXPECT_STREQ(e.what(), "1");
    }
  }
  int64_t sum = 0;  // and the pool still works
  pool.parallel_for(1, 1, [&](int64_t, int64_t end, int) { sum += end; });
  EXPECT_EQ(sum, 1);
}

TEST(ThreadPool, NestedCallsRunInlineUnderTheSameWorker) {
  ThreadPool pool(3);
  std::atomic<int64_t> total{0};
  pool.parallel_for(3, 1, [&](int64_t, int64_t, int outer) {
    const std::thread::id id = std::this_thread::get_id();
    pool.parallel_for(100, 1, [&](int64_t begin, int64_t end, int inner) {
      EXPECT_EQ(id, std::this_thread::get_id());
      EXPECT_EQ(inner, outer);
      total += end - begin;
    });
  });
  EXPECT_EQ(total.load(), 300);
}

TEST(ThreadPool, CallersQueue) {
  ThreadPool pool(2);
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        pool.parallel_for(10, 1, [&](int64_t begin, int64_t end, int) { total += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total.load(), 3 * 200 * 10);
}

TEST(ThreadPool, WakesAfterSleeping) {
  ThreadPool pool(3);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than the spin
    std::atomic<int> n{0};
    pool.parallel_for(3, 1, [&](int64_t, int64_t, int) { ++n; });
    EXPECT_EQ(n.load(), 3);
  }
}

TEST(ThreadPool, ParallelForDoesNotAllocate) {
  ThreadPool pool(3);
  std::vector<int64_t> out(300);
  const std::function<void(int64_t, int64_t, int)> body = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) out[static_cast<size_t>(i)] = i;
  };
  pool.parallel_for(300, 1, body);
  const int64_t before = allocations.load();
  for (int i = 0; i < 100; ++i) pool.parallel_for(300, 7, body);
  EXPECT_EQ(allocations.load(), before);
}

TEST(ThreadPool, DefaultCountIsPositive) {
  EXPECT_GE(default_thread_count(), 1);
  EXPECT_LE(default_thread_count(), static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_EQ(ThreadPool().size(), default_thread_count());
}

}  // namespace
}  // namespace repquant
