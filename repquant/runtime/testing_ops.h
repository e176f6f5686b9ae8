#pragma once
// For tests: plans run against the naive executor, every step bit for bit, for every instruction
// set this machine has, threads 1, 2, 3 and batches 1, 3, 8.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "repquant/runtime/session.h"
#include "repquant/runtime/testing.h"
#include "repquant/runtime/testing_naive.h"

namespace repquant::testing {

inline Shape with_batch(int64_t batch, const Shape& item) {
  Shape shape{batch};
  shape.insert(shape.end(), item.begin(), item.end());
  return shape;
}

using ItemInputs = std::vector<std::vector<float>>;

inline ItemInputs random_items(const Plan& plan, int64_t batch, float low, float high) {
  Random random(99);
  ItemInputs items;
  const int64_t count = element_count(plan.buffers[static_cast<size_t>(plan.inputs[0])].item_shape);
  for (int64_t i = 0; i < batch; ++i) items.push_back(random.reals(count, low, high));
  return items;
}

inline bool same_bits(const void* a, const void* b, size_t bytes) {
  return std::memcmp(a, b, bytes) == 0;
}

// One run, every step's output compared with the naive values of each item.
inline void expect_equal(const std::shared_ptr<const Program>& program, const ItemInputs& items,
                         const std::vector<std::vector<Value>>& wanted, int64_t batch,
                         ThreadPool* pool) {
  const Plan& plan = program->plan();
  const Buffer& input = plan.buffers[static_cast<size_t>(plan.inputs[0])];
  const Buffer& output = plan.buffers[static_cast<size_t>(plan.outputs[0])];
  std::vector<float> x, y(static_cast<size_t>(batch * element_count(output.item_shape)), -7.0f);
  for (int64_t i = 0; i < batch; ++i) {
    x.insert(x.end(), items[static_cast<size_t>(i)].begin(), items[static_cast<size_t>(i)].end());
  }
  const Shape in_shape = with_batch(batch, input.item_shape),
              out_shape = with_batch(batch, output.item_shape);
  const ConstTensorView in{x.data(), DType::kF32, in_shape};
  const TensorView out{y.data(), DType::kF32, out_shape};
  Session session(program, {8, pool, 0.0});  // every step split, however small
  size_t seen = 0;
  session.run_tapped({&in, 1}, {&out, 1}, [&](const Step& step, int, ConstTensorView value) {
    ++seen;
    const auto index = static_cast<size_t>(step.out[0]);
    ASSERT_EQ(value.shape[0], batch);
    for (int64_t i = 0; i < batch; ++i) {
      const Value& naive = wanted[static_cast<size_t>(i)][index];
      const bool codes = value.dtype == DType::kU8;
      const size_t bytes = codes ? naive.q.size() : naive.f.size() * 4;
      ASSERT_EQ(bytes * static_cast<size_t>(batch),
                static_cast<size_t>(value.size()) * size_of(value.dtype));
      const auto* mine = static_cast<const std::byte*>(value.data) + static_cast<size_t>(i) * bytes;
      const void* theirs = codes ? static_cast<const void*>(naive.q.data()) : naive.f.data();
      ASSERT_TRUE(same_bits(mine, theirs, bytes)) << step.name << " item " << i << " of " << batch;
    }
  });
  EXPECT_EQ(seen, plan.steps.size());
}

inline std::vector<std::shared_ptr<const Program>> programs_of(const Plan& plan) {
  std::vector<std::shared_ptr<const Program>> all;
  for (const std::string& isa : runtime::available_isas())
    all.push_back(Program::from_plan(plan, {.isa = isa}));
  return all;
}

inline void check(const Plan& plan, float low = -3.0f, float high = 3.0f) {
  const ItemInputs items = random_items(plan, 8, low, high);
  std::vector<std::vector<Value>> wanted;
  for (const std::vector<float>& item : items) wanted.push_back(Naive(plan).run({item}));
  for (size_t i = 0; i < wanted[0].size(); ++i) {  // a test on constant values would show little
    const std::vector<uint8_t>& codes = wanted[0][i].q;
    if (codes.size() < 64) continue;
    ASSERT_NE(*std::min_element(codes.begin(), codes.end()),
              *std::max_element(codes.begin(), codes.end()))
        << plan.buffers[i].name;
  }
  ThreadPool two(2), three(3);
  for (const auto& program : programs_of(plan)) {
    for (const int64_t batch : {1, 3, 8}) {
      for (ThreadPool* pool : {static_cast<ThreadPool*>(nullptr), &two, &three}) {
        expect_equal(program, items, wanted, batch, pool);
        if (::testing::Test::HasFatalFailure()) FAIL() << program->isa();
      }
    }
  }
}

}  // namespace repquant::testing
