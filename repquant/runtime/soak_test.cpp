// Sessions of many kinds at once for a while: answers stay equal and memory stays flat. Five
// seconds in the suite; REPQUANT_SOAK_SECONDS sets another length (the ctest label `slow` runs ten
// minutes).
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "repquant/runtime/session.h"
#include "repquant/runtime/testing.h"

namespace repquant {
namespace {

using Clock = std::chrono::steady_clock;

int64_t resident_bytes() {
  ::malloc_trim(0);
  long long pages = 0, resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  const bool read = file != nullptr && std::fscanf(file, "%lld %lld", &pages, &resident) == 2;
  if (file != nullptr) std::fclose(file);
  return read ? resident * ::sysconf(_SC_PAGESIZE) : -1;
}

constexpr int64_t kImage = 3 * 16 * 16, kClasses = 10, kMostItems = 5;

// What all threads share: plans, their programs, and the answers for one batch of images.
struct Stage {
  std::vector<Plan> plans;
  std::vector<std::shared_ptr<const Program>> programs;
  std::vector<float> images;
  std::vector<std::vector<float>> answers;  // by program
  ThreadPool pool{2};
  std::atomic<bool> ended{false};
  std::atomic<int64_t> runs{0}, opened{0}, stopped{0}, refused{0}, wrong{0};

  Stage() : images(testing::Random(1).reals(kMostItems * kImage, -2, 2)) {
    for (const int bits : {4, 8}) {
      plans.push_back(testing::make_vit({16, 4, 32, 2, 64, kClasses, 2, bits, bits == 8}, 3));
      programs.push_back(Program::from_plan(plans.back()));
      Session session(programs.back(), {kMostItems});
      answers.emplace_back(static_cast<size_t>(kMostItems * kClasses));
      run(session, kMostItems, answers.back().data());
    }
  }

  void run(Session& session, int64_t items, float* out) const {
    const Shape in_shape{items, 3, 16, 16}, out_shape{items, 1, kClasses};
    const ConstTensorView from{images.data(), DType::kF32, in_shape};
    const TensorView to{out, DType::kF32, out_shape};
    session.run({&from, 1}, {&to, 1});
  }
};

// One life of a session: opened or shared program, own, shared or no pool; runs, stops, refusals.
void live(Stage& stage, testing::Random& random) {
  const auto which = static_cast<size_t>(random.integer(0, 1));
  auto program = stage.programs[which];
  if (random.integer(0, 7) == 0) {
    const std::vector<std::string> isas = runtime::available_isas();
    const auto row = static_cast<size_t>(random.integer(0, static_cast<int64_t>(isas.size()) - 1));
    program = Program::from_plan(stage.plans[which], {.isa = isas[row]});
    ++stage.opened;
  }
  std::unique_ptr<ThreadPool> own;
  const int64_t pool = random.integer(0, 3);
  if (pool == 0) own = std::make_unique<ThreadPool>(2, ThreadPoolOptions{.spin_us = 0});
  StopFlag stop;
  Session session(program, {kMostItems,
                            own         ? own.get()
                            : pool == 1 ? &stage.pool
                                        : nullptr,
                            0.0, &stop});
  std::vector<float> out(static_cast<size_t>(kMostItems * kClasses));
  for (int64_t left = random.integer(1, 20); left > 0; --left) {
    const int64_t items = random.integer(1, kMostItems);
    if (random.integer(0, 15) == 0) stop.raise();
    try {
      stage.run(session, items + (random.integer(0, 15) == 0 ? kMostItems : 0), out.data());
      const auto bytes = static_cast<size_t>(items * kClasses) * sizeof(float);
      if (std::memcmp(out.data(), stage.answers[which].data(), bytes) != 0) ++stage.wrong;
      ++stage.runs;
    } catch (const Interrupted&) {
      stop.clear();
      ++stage.stopped;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInvalidArgument) ++stage.wrong;
      ++stage.refused;
    }
  }
}

TEST(Soak, MixedSessionsHoldMemoryFlat) {
  const char* text = std::getenv("REPQUANT_SOAK_SECONDS");
  const double seconds = text == nullptr ? 5.0 : std::atof(text);
  Stage stage;
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    threads.emplace_back([&stage, seed] {
      testing::Random random(seed);
      while (!stage.ended.load()) live(stage, random);
    });
  }
  const auto sleep = [](double s) {
    std::this_thread::sleep_for(std::chrono::duration<double>(s));
  };
  sleep(0.3 * seconds);
  const int64_t warm = resident_bytes();
  sleep(0.7 * seconds);
  const int64_t last = resident_bytes();
  stage.ended.store(true);
  for (std::thread& thread : threads) thread.join();
  std::printf(
      "soak: %.0f s, %lld runs, %lld programs opened, %lld stopped, %lld refused; "
      "%.1f MiB after warm-up, %.1f MiB at the end\n",
      seconds, static_cast<long long>(stage.runs), static_cast<long long>(stage.opened),
      static_cast<long long>(stage.stopped), static_cast<long long>(stage.refused),
      static_cast<double>(warm) / (1 << 20), static_cast<double>(last) / (1 << 20));
  EXPECT_EQ(stage.wrong.load(), 0);
  for (const auto* count : {&stage.runs, &stage.opened, &stage.stopped, &stage.refused})
    EXPECT_GT(count->load(), 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which keep freed memory
  // A leak of one arena a session would be tens of MiB in five seconds; arenas of malloc and stacks
  // of threads that end vary by less than this.
  EXPECT_LT(last - warm, 8 << 20);
#endif
}

}  // namespace
}  // namespace repquant
