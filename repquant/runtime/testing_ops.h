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

// Of one item, by input; integers as floats of their value.
using ItemInputs = std::vector<std::vector<float>>;
using Items = std::vector<ItemInputs>;

inline Items random_items(const Plan& plan, int64_t batch, float low, float high) {
  Random random(99);
  Items items(static_cast<size_t>(batch));
  for (ItemInputs& item : items) {
    for (const int input : plan.inputs) {
      const Buffer& buffer = plan.buffers[static_cast<size_t>(input)];
      item.push_back(random.reals(element_count(buffer.item_shape), low, high));
      if (buffer.dtype == DType::kF32) continue;
      for (float& v : item.back()) v = std::round(v);
    }
  }
  return items;
}

// One input of the first items, as [batch, item...].
inline Tensor joined(const Buffer& buffer, const Items& items, size_t input, int64_t batch) {
  Tensor all(buffer.dtype, with_batch(batch, buffer.item_shape));
  size_t at = 0;
  for (size_t i = 0; i < static_cast<size_t>(batch); ++i) {
    for (const float v : items[i][input]) {
      if (buffer.dtype == DType::kF32) all.as<float>()[at++] = v;
      else if (buffer.dtype == DType::kI64) all.as<int64_t>()[at++] = static_cast<int64_t>(v);
      else all.as<int32_t>()[at++] = static_cast<int32_t>(v);
    }
  }
  return all;
}

inline bool same_bits(const void* a, const void* b, size_t bytes) {
  return std::memcmp(a, b, bytes) == 0;
}

// One run, every step's output compared with the naive values of each item.
inline void expect_equal(const std::shared_ptr<const Program>& program, const Items& items,
                         const std::vector<std::vector<Value>>& wanted, int64_t batch,
                         ThreadPool* pool) {
  const Plan& plan = program->plan();
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < plan.inputs.size(); ++i)
    inputs.push_back(joined(plan.buffers[static_cast<size_t>(plan.inputs[i])], items, i, batch));
  std::vector<ConstTensorView> in;
  for (const Tensor& input : inputs) in.push_back(std::as_const(input).view());
  const Buffer& output = plan.buffers[static_cast<size_t>(plan.outputs[0])];
  std::vector<float> y(static_cast<size_t>(batch * element_count(output.item_shape)), -7.0f);
  const Shape out_shape = with_batch(batch, output.item_shape);
  const TensorView out{y.data(), DType::kF32, out_shape};
  Session session(program, {8, pool, 0.0});  // every step split, however small
  size_t seen = 0;
  session.run_tapped(in, {&out, 1}, [&](const Step& step, int, ConstTensorView value) {
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
  const Items items = random_items(plan, 8, low, high);
  std::vector<std::vector<Value>> wanted;
  for (const ItemInputs& item : items) wanted.push_back(Naive(plan).run(item));
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
