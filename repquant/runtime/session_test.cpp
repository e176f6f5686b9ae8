#include "repquant/runtime/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstdlib>
#include <cstring>
#include <new>

#include "repquant/runtime/fp_environment.h"
#include "repquant/runtime/testing.h"

// Every allocation of this test program is counted.
namespace {
std::atomic<int64_t> allocations{0};

[[maybe_unused]] void* counted(size_t size, size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
}  // namespace

#ifndef __SANITIZE_ADDRESS__  // which brings its own and checks that they match
// GCC pairs the free() below with its own operator new, not with the one above it.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void* operator new(size_t size) { return counted(size, 16); }
void* operator new[](size_t size) { return counted(size, 16); }
void* operator new(size_t size, std::align_val_t a) {
  return counted(size, static_cast<size_t>(a));
}
void* operator new[](size_t size, std::align_val_t a) {
  return counted(size, static_cast<size_t>(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }
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
  ThreadPool pool(3);
  for (ThreadPool* used : {static_cast<ThreadPool*>(nullptr), &pool}) {
    Session session(program, {4, used, 0.0});
    Call call(4), smaller(2);
    const int64_t before = allocations.load();
    for (int i = 0; i < 3; ++i) call.run(session);
    smaller.run(session);
    EXPECT_EQ(allocations.load(), before);
  }
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
