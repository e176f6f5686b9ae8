#include "repquant/core/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "repquant/core/cpu_quota.h"
#include "repquant/core/error.h"

namespace {
std::atomic<int64_t> allocations{0};
}

// The sanitizers bring their own and check that they match.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
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

#ifdef __SANITIZE_THREAD__
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

TEST(ThreadPool, EveryIndexOnceInGrains) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int64_t count : {0, 1, 2, 5, 64, 1000}) {
      for (const int64_t grain : {1, 4, 16, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int worker) {
          EXPECT_LT(begin, end);
          EXPECT_EQ(begin % grain, 0);
          EXPECT_TRUE(end == count || (end - begin) % grain == 0);
          EXPECT_GE(worker, 0);
          EXPECT_LT(worker, threads);
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        for (const std::atomic<int>& n : seen) EXPECT_EQ(n.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, CountsBeyond32Bits) {
  ThreadPool pool(3);
  const int64_t count = (int64_t{1} << 40) + 5;
  std::atomic<int64_t> total{0};
  pool.parallel_for(count, 3, [&](int64_t begin, int64_t end, int) {
    EXPECT_EQ(begin % 3, 0);
    total += end - begin;
  });
  EXPECT_EQ(total.load(), count);
}

// Scratch memory is chosen by the worker's index.
TEST(ThreadPool, AWorkerRunsOnePieceAtATime) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> running(4);
  for (int round = 0; round < 50; ++round) {
    pool.parallel_for(64, 1, [&](int64_t, int64_t, int worker) {
      EXPECT_EQ(running[static_cast<size_t>(worker)].fetch_add(1), 0);
      std::this_thread::yield();
      EXPECT_EQ(running[static_cast<size_t>(worker)].fetch_sub(1), 1);
    });
  }
}

// Whoever is done takes from the others: no piece waits behind a long one.
TEST(ThreadPool, WorkIsTakenFromTheSlow) {
  ThreadPool pool(2);
  std::atomic<int> others{0};
  pool.parallel_for(64, 1, [&](int64_t begin, int64_t end, int) {
    if (begin != 0) {
      others += static_cast<int>(end - begin);
      return;
    }
    others += static_cast<int>(end - begin) - 1;
    while (others.load() < 63) std::this_thread::yield();  // until all the rest is done elsewhere
  });
  EXPECT_EQ(others.load(), 63);
}

TEST(ThreadPool, TheFirstExceptionByPieceIsRethrown) {
  ThreadPool pool(4);
  for (int round = 0; round < 50; ++round) {
    try {  // shares of one grain: the pieces are known
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

TEST(ThreadPool, NestedCallsAreRefused) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads), other(2);
    for (ThreadPool* inner : {&pool, &other}) {
      std::atomic<int> refused{0};
      pool.parallel_for(3, 1, [&](int64_t begin, int64_t end, int) {
        try {
          inner->parallel_for(100, 1, [](int64_t, int64_t, int) {});
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
          EXPECT_NE(std::string(error.what()).find("nested"), std::string::npos);
          refused += static_cast<int>(end - begin);
        }
      });
      EXPECT_EQ(refused.load(), 3);
    }
    int64_t after = 0;
    pool.parallel_for(1, 1, [&](int64_t, int64_t end, int) { after += end; });
    EXPECT_EQ(after, 1);
  }
}

// Runs `body` in the child of a fork; its exit status.
template <class Body> int status_of_child(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ThreadPool, AForkedChildIsRefusedAndMayMakeItsOwn) {
  auto pool = std::make_unique<ThreadPool>(3);
  std::atomic<int64_t> total{0};
  const auto add = [&](int64_t begin, int64_t end, int) { total += end - begin; };
  pool->parallel_for(100, 1, add);
  EXPECT_EQ(status_of_child([&] {
              try {
                pool->parallel_for(100, 1, add);
                return 1;
              } catch (const Error& error) {
                if (std::string(error.what()).find("fork") == std::string::npos) return 2;
              }
              pool.reset();                    // does not wait for threads that are not there
              if (kThreadSanitizer) return 0;  // which starts no threads in a child
              ThreadPool own(2);
              own.parallel_for(100, 1, add);
              return total.load() == 200 ? 0 : 3;
            }),
            0);
  pool->parallel_for(100, 1, add);
  EXPECT_EQ(total.load(), 200);
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

TEST(ThreadPool, SleepingWorkersWake) {
  for (const int spin_us : {0, 100}) {
    ThreadPool pool(3, {.spin_us = spin_us});
    for (int i = 0; i < 5; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than the spin
      std::atomic<int> arrived{0};
      pool.parallel_for(3, 1, [&](int64_t begin, int64_t end, int) {
        arrived += static_cast<int>(end - begin);
        while (arrived.load() < 3) std::this_thread::yield();  // needs all three threads
      });
    }
  }
}

TEST(ThreadPool, NobodyWaitsForAWorkerThatHasNothing) {
  ThreadPool pool(8, {.spin_us = 0});
  for (int i = 0; i < 2000; ++i) {
    int64_t sum = 0;
    std::mutex lock;
    pool.parallel_for(16, 8, [&](int64_t begin, int64_t end, int) {
      const std::lock_guard guard(lock);
      sum += end - begin;
    });
    ASSERT_EQ(sum, 16);
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

TEST(ThreadPool, TheAffinityMaskCounts) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(default_thread_count(), 1);
  ASSERT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
}

class Groups : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "repquant_groups_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  std::string root_;
};

TEST_F(Groups, QuotaIsTheLeastOfTheGroupAndItsParentsRoundedUp) {
  EXPECT_EQ(cpu_quota("0::/a/b\n", root_), kNoQuota);
  put("/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(cpu_quota("0::/a/b\n", root_), kNoQuota);
  put("/a/cpu.max", "250000 100000\n");
  EXPECT_EQ(cpu_quota("0::/a/b\n", root_), 3);
  EXPECT_EQ(cpu_quota("0::/\n", root_), kNoQuota);
  put("/a/b/cpu.max", "1000 100000\n");
  EXPECT_EQ(cpu_quota("0::/a/b\n", root_), 1);
  put("/cpu.max", "200000 100000\n");
  EXPECT_EQ(cpu_quota("0::/elsewhere/../x\n", root_), 2);
  EXPECT_EQ(cpu_quota("nonsense", root_), 2);
  EXPECT_EQ(cpu_quota("0::/a/b\n", root_ + "/none"), kNoQuota);
}

TEST_F(Groups, QuotaOfTheFirstVersion) {
  put("/cpu/g/cpu.cfs_quota_us", "150000\n");
  put("/cpu/g/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpu_quota("4:memory:/g\n3:cpu,cpuacct:/g\n", root_), 2);
  EXPECT_EQ(cpu_quota("3:cpuset:/g\n", root_), kNoQuota);
  put("/cpu/g/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(cpu_quota("3:cpu:/g\n", root_), kNoQuota);
}

}  // namespace
}  // namespace repquant
