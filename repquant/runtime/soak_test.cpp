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
#include "repquant/runtime/testing_kinds.h"
#include "repquant/runtime/testing_ops.h"

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

constexpr int64_t kMostItems = 5;

// A plan with its program, a batch of inputs and the answers.
struct Model {
  Plan plan;
  std::shared_ptr<const Program> program;
  std::vector<Tensor> inputs;
  std::vector<float> answers;

  explicit Model(Plan made) : plan(std::move(made)), program(Program::from_plan(plan)) {
    const testing::Items items = testing::random_items(plan, kMostItems, 0.1f, 2.0f);
    for (size_t i = 0; i < plan.inputs.size(); ++i) {
      const Buffer& buffer = plan.buffers[static_cast<size_t>(plan.inputs[i])];
      inputs.push_back(testing::joined(buffer, items, i, kMostItems));
    }
    answers.resize(static_cast<size_t>(kMostItems * width()));
    Session session(program, {kMostItems});
    run(session, kMostItems, answers.data());
  }

  const Buffer& output() const { return plan.buffers[static_cast<size_t>(plan.outputs[0])]; }
  int64_t width() const { return element_count(output().item_shape); }

  void run(Session& session, int64_t items, float* out) const {
    std::vector<Shape> shapes;
    for (const Tensor& input : inputs) {
      shapes.push_back(input.shape());
      shapes.back()[0] = items;
    }
    std::vector<ConstTensorView> from;
    for (size_t i = 0; i < inputs.size(); ++i)
      from.emplace_back(inputs[i].data(), inputs[i].dtype(), shapes[i]);
    const Shape out_shape = testing::with_batch(items, output().item_shape);
    const TensorView to{out, DType::kF32, out_shape};
    session.run(from, {&to, 1});
  }
};

// What all threads share.
struct Stage {
  std::vector<Model> models;
  ThreadPool pool{2};
  std::atomic<bool> ended{false};
  std::atomic<int64_t> runs{0}, opened{0}, stopped{0}, refused{0}, wrong{0};

  Stage() {
    for (const int bits : {4, 8})
      models.emplace_back(testing::make_vit({16, 4, 32, 2, 64, 10, 2, bits, bits == 8}, 3));
    for (testing::KindPlan& kind : testing::every_kind()) models.emplace_back(std::move(kind.plan));
  }
};

// One life of a session: opened or shared program, own, shared or no pool; runs, stops, refusals.
void live(Stage& stage, testing::Random& random) {
  // Half of the lives are those of whole models.
  const auto last = random.integer(0, 1) == 0 ? 1 : static_cast<int64_t>(stage.models.size()) - 1;
  const Model& model = stage.models[static_cast<size_t>(random.integer(0, last))];
  auto program = model.program;
  if (random.integer(0, 7) == 0) {
    const std::vector<std::string> isas = runtime::available_isas();
    const auto row = static_cast<size_t>(random.integer(0, static_cast<int64_t>(isas.size()) - 1));
    program = Program::from_plan(model.plan, {.isa = isas[row]});
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
  std::vector<float> out(model.answers.size());
  for (int64_t left = random.integer(1, 20); left > 0; --left) {
    const int64_t items = random.integer(1, kMostItems);
    if (random.integer(0, 15) == 0) stop.raise();
    try {
      model.run(session, items + (random.integer(0, 15) == 0 ? kMostItems : 0), out.data());
      const auto bytes = static_cast<size_t>(items * model.width()) * sizeof(float);
      if (std::memcmp(out.data(), model.answers.data(), bytes) != 0) ++stage.wrong;
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
  // Resident memory at the start, and after 3, 5, 8 and 10 tenths of the time.
  std::vector<int64_t> resident{resident_bytes()};
  for (const double part : {0.3, 0.2, 0.3, 0.2}) {
    std::this_thread::sleep_for(std::chrono::duration<double>(part * seconds));
    resident.push_back(resident_bytes());
  }
  stage.ended.store(true);
  for (std::thread& thread : threads) thread.join();
  std::printf(
      "soak: %.0f s, %zu plans, %lld runs, %lld programs opened, %lld stopped, %lld refused\n",
      seconds, stage.models.size(), static_cast<long long>(stage.runs),
      static_cast<long long>(stage.opened), static_cast<long long>(stage.stopped),
      static_cast<long long>(stage.refused));
  std::printf("resident MiB at 0, 3, 5, 8, 10 tenths:");
  for (const int64_t bytes : resident) std::printf(" %.1f", static_cast<double>(bytes) / (1 << 20));
  std::printf("\n");
  EXPECT_EQ(stage.wrong.load(), 0);
  for (const auto* count : {&stage.runs, &stage.opened, &stage.stopped, &stage.refused})
    EXPECT_GT(count->load(), 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which keep freed memory
  // A leak of one arena a session would be tens of MiB in five seconds; arenas of malloc and stacks
  // of threads that end vary by less than this.
  EXPECT_LT(resident.back() - resident[1], 8 << 20);
#endif
}

}  // namespace
}  // namespace repquant
