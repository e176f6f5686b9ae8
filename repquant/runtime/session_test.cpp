#include "repquant/runtime/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cfenv>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include "repquant/runtime/fp_environment.h"
#include "repquant/runtime/testing.h"

// Every allocation of this test program is counted, whoever makes it: operator new, the standard
// library and the C library all end here.
namespace {
std::atomic<int64_t> allocations{0};
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // which bring their own
constexpr bool kCounts = false;
#else
constexpr bool kCounts = true;
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

void* malloc(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_realloc(memory, size);
}
void* memalign(size_t alignment, size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void** memory, size_t alignment, size_t size) {
  *memory = memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}
}
#endif

namespace repquant {
namespace {

constexpr int64_t kImage = 3 * 16 * 16;
constexpr int64_t kClasses = 10;

std::shared_ptr<const Program> small_program() {
  return Program::from_plan(testing::make_vit({16, 4, 32, 2, 64, kClasses, 2, 4, false}, 11));
}

// Owns the views of one call.
struct Call {
  explicit Call(int64_t n, uint64_t seed = 5) : batch(n) {
    x = testing::Random(seed).reals(n * kImage, -2, 2);
    y.assign(static_cast<size_t>(n * kClasses), 0.0f);
    in_shape = {n, 3, 16, 16};
    out_shape = {n, 1, kClasses};
  }
  ConstTensorView in() const { return {x.data(), DType::kF32, in_shape}; }
  TensorView out() { return {y.data(), DType::kF32, out_shape}; }
  void run(Session& session) {
    const ConstTensorView a = in();
    const TensorView b = out();
    session.run({&a, 1}, {&b, 1});
  }
  int64_t batch;
  std::vector<float> x, y;
  Shape in_shape, out_shape;
};

TEST(Session, EqualBitsForThreadsBatchesAndCalls) {
  const auto program = small_program();
  Session one(program, {8});
  Call all(8);
  all.run(one);
  EXPECT_NE(std::vector<float>(all.y.begin(), all.y.begin() + kClasses),
            std::vector<float>(all.y.begin() + kClasses, all.y.begin() + 2 * kClasses));
  for (const int threads : {1, 2, 3}) {
    ThreadPool pool(threads);
    Session session(program, {8, &pool, 0.0});
    for (int64_t item = 0; item < 8; ++item) {
      Call single(1);
      std::copy_n(all.x.begin() + item * kImage, kImage, single.x.begin());
      single.run(session);
      EXPECT_EQ(std::memcmp(single.y.data(), all.y.data() + item * kClasses, kClasses * 4), 0);
    }
    Call again(8);
    again.run(session);
    EXPECT_EQ(again.y, all.y);
  }
}

TEST(Session, DoesNotAllocateWhileRunning) {
  const auto program = small_program();
  ThreadPool two(2), three(3);
  const StopFlag stop;
  const int64_t before_one = allocations.load();
  int* volatile one = new int(1);
  delete one;
  ASSERT_EQ(allocations.load() - before_one, kCounts ? 1 : 0);  // they are counted
  for (ThreadPool* used : {static_cast<ThreadPool*>(nullptr), &two, &three}) {
    Session session(program, {4, used, 0.0, &stop});
    Call call(4), smaller(2);
    const int64_t before = allocations.load();
    for (int i = 0; i < 3; ++i) call.run(session);
    smaller.run(session);
    EXPECT_EQ(allocations.load(), before);
    std::vector<StepTime> times;
    const ConstTensorView in = call.in();
    const TensorView out = call.out();
    session.run_profiled({&in, 1}, {&out, 1}, times);  // makes room for its rows
    const int64_t profiled = allocations.load();
    session.run_profiled({&in, 1}, {&out, 1}, times);
    EXPECT_EQ(allocations.load(), profiled);
  }
}

TEST(Session, AStoppedRunLeavesTheSessionUsable) {
  const auto program = small_program();
  ThreadPool pool(2);
  StopFlag stop;
  Session session(program, {4, &pool, 0.0, &stop}), other(program, {4});
  Call plain(4), stopped(4);
  plain.run(other);
  const ConstTensorView in = stopped.in();
  const TensorView out = stopped.out();
  const size_t steps = program->plan().steps.size();
  for (size_t last = 0; last < steps; ++last) {  // stopped after each step
    size_t seen = 0;
    EXPECT_THROW(session.run_tapped({&in, 1}, {&out, 1},
                                    [&](const Step&, int, ConstTensorView) {
                                      if (seen++ == last) stop.raise();
                                    }),
                 Interrupted)
        << last;
    EXPECT_EQ(seen, last + 1);
    EXPECT_THROW(stopped.run(session), Interrupted);  // still raised: before the first step
    stop.clear();
    if (last + 2 == steps) break;  // behind the last step there is nothing to stop
  }
  const int64_t before = allocations.load();
  stopped.run(session);
  EXPECT_EQ(allocations.load(), before);
  EXPECT_EQ(std::memcmp(stopped.y.data(), plain.y.data(), plain.y.size() * 4), 0);
}

TEST(Session, AnotherThreadStopsARun) {
  const auto program = small_program();
  StopFlag stop;
  Session session(program, {8, nullptr, 0.0, &stop});
  Call call(8);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    stop.raise();
  });
  bool ended = false;
  while (!ended) {
    try {
      call.run(session);
    } catch (const Interrupted& stopped) {
      EXPECT_THAT(stopped.what(), ::testing::HasSubstr("steps"));
      ended = true;
    }
  }
  other.join();
}

// The largest batch fills the arena to its last byte; nothing lies behind it.
TEST(Session, AFullArena) {
  const auto program = small_program();
  for (const int64_t batch : {1, 7, 16}) {
    Session full(program, {batch}), roomy(program, {40});
    Call a(batch), b(batch);
    a.run(full);
    b.run(roomy);
    EXPECT_EQ(std::memcmp(a.y.data(), b.y.data(), a.y.size() * 4), 0);
    Call beyond(batch + 1);
    EXPECT_THROW(beyond.run(full), Error);
    a.run(full);
    EXPECT_EQ(std::memcmp(a.y.data(), b.y.data(), a.y.size() * 4), 0);
  }
}

TEST(Session, AnArenaTheSystemDoesNotGive) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's allocator ends the process instead";
#endif
  try {
    Session session(small_program(), {int64_t{1} << 40});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("memory"));
  }
}

TEST(Session, ManyThreadsOnOneProgram) {
  const auto program = small_program();
  Session reference(program, {2});
  ThreadPool shared(2);
  std::vector<Call> wanted, got;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    wanted.emplace_back(2, seed);
    got.emplace_back(2, seed);
    wanted.back().run(reference);
  }
  std::vector<std::thread> threads;
  for (Call& call : got) {
    threads.emplace_back([&program, &shared, &call] {
      ThreadPool own(2);
      Session alone(program, {2}), split(program, {2, &own, 0.0}),
          queued(program, {2, &shared, 0.0});
      for (int round = 0; round < 5; ++round) {
        for (Session* session : {&alone, &split, &queued}) call.run(*session);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].y, wanted[i].y);
}

TEST(Session, RunsInTheChildOfAFork) {
  const auto program = small_program();
  ThreadPool pool(3);
  Session split(program, {2, &pool, 0.0}), alone(program, {2});
  Call wanted(2), call(2);
  wanted.run(split);  // with live workers
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 1;
    try {
      call.run(split);
    } catch (const Error& error) {
      const bool said = std::string(error.what()).find("fork") != std::string::npos;
      call.run(alone);
      status = said && call.y == wanted.y ? 0 : 2;
    }
    ::_exit(status);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  call.run(split);
  EXPECT_EQ(call.y, wanted.y);
}

TEST(Session, TapAndProfileSeeEveryStepAndChangeNothing) {
  const auto program = small_program();
  Session session(program, {2});
  Call plain(2), tapped(2), profiled(2);
  plain.run(session);
  std::vector<std::string> names;
  const ConstTensorView in = tapped.in();
  const TensorView out = tapped.out();
  session.run_tapped({&in, 1}, {&out, 1}, [&](const Step& step, int index, ConstTensorView value) {
    EXPECT_EQ(index, 0);
    EXPECT_EQ(value.shape.size(),
              program->plan().buffers[static_cast<size_t>(step.out[0])].item_shape.size() + 1);
    EXPECT_EQ(value.shape[0], 2);
    names.push_back(step.name);
  });
  EXPECT_EQ(tapped.y, plain.y);
  ASSERT_EQ(names.size(), program->plan().steps.size());
  for (size_t s = 0; s < names.size(); ++s) EXPECT_EQ(names[s], program->plan().steps[s].name);
  std::vector<StepTime> times;
  const TensorView other = profiled.out();
  session.run_profiled({&in, 1}, {&other, 1}, times);
  EXPECT_EQ(profiled.y, plain.y);
  EXPECT_EQ(times.size(), names.size());
}

// Outputs that are also read later, named twice, or plan inputs.
TEST(Session, OutputsInEveryPosition) {
  testing::PlanBuilder b(21);
  const int x = b.input("x", {4, 6});
  const int half = b.step("mul", {x}, DType::kF32, {4, 6}, 32);
  b.tensor("const", Tensor::of<float>({6}, std::vector<float>(6, 0.5f)));
  const int y = b.activation(half, "relu");
  Plan plan = b.finish(y);
  plan.outputs = {y, half, x, y};
  Session session(Program::from_plan(plan));
  const std::vector<float> values = testing::Random(1).reals(24, -1, 1);
  std::vector<std::vector<float>> results(4, std::vector<float>(24));
  const Shape shape{1, 4, 6};
  const ConstTensorView in{values.data(), DType::kF32, shape};
  std::vector<TensorView> out;
  for (std::vector<float>& r : results) out.push_back({r.data(), DType::kF32, shape});
  session.run({&in, 1}, out);
  for (size_t i = 0; i < 24; ++i) {
    EXPECT_EQ(results[1][i], values[i] * 0.5f);
    EXPECT_EQ(results[0][i], std::max(values[i] * 0.5f, 0.0f));
    EXPECT_EQ(results[2][i], values[i]);
  }
  EXPECT_EQ(results[3], results[0]);
}

TEST(Session, WrongViewsAreRefused) {
  Session session(small_program(), {2});
  const auto refuse = [&](const ConstTensorView& in, const TensorView& out, const char* part) {
    try {
      session.run({&in, 1}, {&out, 1});
      ADD_FAILURE() << "accepted: " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_THAT(error.what(), ::testing::HasSubstr(part));
    }
  };
  Call good(2), large(3), one(1);
  refuse(large.in(), large.out(), "\"image\"");
  refuse(good.in(), one.out(), "batch of 2, got 1");
  ConstTensorView wrong = good.in();
  wrong.dtype = DType::kU8;
  refuse(wrong, good.out(), "\"image\"");
  const Shape flat{2, kImage}, none{0, 3, 16, 16}, tall{2, 3, 17, 16};
  for (const Shape* shape : {&flat, &none, &tall}) {
    wrong = good.in();
    wrong.shape = *shape;
    refuse(wrong, good.out(), "[3, 16, 16]");
  }
  wrong = good.in();
  wrong.data = nullptr;
  refuse(wrong, good.out(), "\"image\"");
  EXPECT_THROW(session.run({}, {}), Error);
  TensorView inside = good.out();
  inside.data = good.x.data() + 5;
  refuse(good.in(), inside, "memory of its own");
  good.run(session);  // still usable
}

TEST(Session, FloatStateOfTheCallerDoesNotMatter) {
  const auto program = small_program();
  ThreadPool pool(2);
  Session session(program, {2, &pool, 0.0});
  Call plain(2), upward(2);
  plain.x[5] = upward.x[5] = 1e-40f;
  plain.run(session);
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040);
#endif
  upward.run(session);
  const int mode = std::fegetround();
#if defined(__x86_64__)
  EXPECT_EQ(_mm_getcsr() & 0x8040u, 0x8040u);
  _mm_setcsr(_mm_getcsr() & ~0x8040u);
#endif
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(mode, FE_UPWARD);
  EXPECT_EQ(std::memcmp(plain.y.data(), upward.y.data(), plain.y.size() * 4), 0);
}

// Memory that no live buffer holds is overwritten after every step: whatever a later step still
// read from it, or did not write itself, would change the result.
TEST(Session, DeadMemoryIsNotRead) {
  const auto program = small_program();
  const auto& buffers = program->memory().buffers;
  const Plan& plan = program->plan();
  Session session(program, {2});
  Call plain(2), poisoned(2);
  plain.run(session);
  const ConstTensorView in = poisoned.in();
  const TensorView out = poisoned.out();
  std::vector<std::pair<std::byte*, size_t>> where(buffers.size());
  session.run_tapped({&in, 1}, {&out, 1}, [&](const Step& step, int, ConstTensorView value) {
    const size_t bytes = static_cast<size_t>(value.size()) * size_of(value.dtype);
    where[static_cast<size_t>(step.out[0])] = {
        static_cast<std::byte*>(const_cast<void*>(value.data)), bytes};
  });
  EXPECT_EQ(poisoned.y, plain.y);
  int done = 0, scribbled = 0;
  session.run_tapped({&in, 1}, {&out, 1}, [&](const Step&, int, ConstTensorView) {
    std::vector<std::pair<std::byte*, size_t>> live;
    for (size_t b = 0; b < buffers.size(); ++b) {
      if (!buffers[b].external && buffers[b].first <= done && done < buffers[b].last)
        live.push_back(where[b]);
    }
    for (size_t b = 0; b < buffers.size(); ++b) {
      if (buffers[b].external) continue;
      const auto [at, bytes] = where[b];
      const bool clear =
          std::none_of(live.begin(), live.end(), [at = at, bytes = bytes](const auto& l) {
            return at < l.first + l.second && l.first < at + bytes;
          });
      if (clear) std::memset(at, 0xff, bytes), ++scribbled;
    }
    ++done;
  });
  EXPECT_GT(scribbled, static_cast<int>(plan.steps.size()));
  EXPECT_EQ(std::memcmp(poisoned.y.data(), plain.y.data(), plain.y.size() * 4), 0);
}

// Two sessions of one program do not disturb each other.
TEST(Session, ShareAProgram) {
  const auto program = small_program();
  Session a(program, {2}), b(program, {2});
  Call first(2, 5), second(2, 6), again(2, 5);
  first.run(a);
  second.run(b);
  again.run(a);
  EXPECT_EQ(first.y, again.y);
  EXPECT_NE(first.y, second.y);
}

}  // namespace
}  // namespace repquant
