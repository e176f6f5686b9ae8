// Simulator and runtime on random small transformers: equal bits, step by step, for every number of
// threads and images; and a constant that is off by one does not go unseen.
#include <cstring>
#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "repquant/graph/testing_vit.h"
#include "repquant/lower/lower.h"
#include "repquant/runtime/session.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

using Bytes = std::vector<std::byte>;
using Trace = std::map<int, Bytes>;  // by buffer: the items of the batch one after another

Trace simulated(const Plan& plan, const Tensor& images, std::vector<Tensor>* outputs) {
  Trace trace;
  *outputs = Simulator(plan).run({images}, [&](const Step& step, int out, ConstTensorView value) {
    const int buffer = step.out[static_cast<size_t>(out)];
    const auto* data = static_cast<const std::byte*>(value.data);
    const size_t size = static_cast<size_t>(value.size()) * size_of(value.dtype);
    trace[buffer].insert(trace[buffer].end(), data, data + size);
  });
  return trace;
}

// Name of the first step whose output differs from the trace, bit for bit.
std::optional<std::string> first_difference(const Plan& plan, const Trace& expected,
                                            const Tensor& images,
                                            const std::vector<Tensor>& outputs, ThreadPool* pool) {
  const int64_t batch = images.shape()[0];
  Session session(Program::from_plan(plan),
                  {.max_batch = batch, .pool = pool, .parallel_from_ns = 0});
  std::optional<std::string> different;
  size_t steps = 0;
  Tensor got(DType::kF32, outputs[0].shape());
  const std::vector<ConstTensorView> in{images.view()};
  const std::vector<TensorView> out{got.view()};
  session.run_tapped(in, out, [&](const Step& step, int output, ConstTensorView value) {
    ++steps;
    const Bytes& want = expected.at(step.out[static_cast<size_t>(output)]);
    const size_t size = static_cast<size_t>(value.size()) * size_of(value.dtype);
    const bool same = size == want.size() && std::memcmp(value.data, want.data(), size) == 0;
    if (!same && !different) different = step.name;
  });
  EXPECT_EQ(steps, plan.steps.size());
  if (!different && std::memcmp(got.data(), outputs[0].data(), got.bytes()) != 0)
    different = "output";
  return different;
}

TEST(Exactness, SimulatorEqualsRuntimeBitForBit) {
  ThreadPool two(2), three(3);
  for (testing::TinyVit options : testing::tiny_vit_variants()) {
    for (const int width : {32, 52}) {  // 52: rows that fill no vector
      options.embed = width;
      options.mlp = width == 32 ? 64 : 70;
      SCOPED_TRACE("seed " + std::to_string(options.seed) + " width " + std::to_string(width));
      const testing::Model model = testing::tiny_vit(options);
      const Plan plan = lower(model.graph, model.plan);
      for (const int64_t batch : {1, 3}) {
        const Tensor images = testing::random_images(options, batch, 17 * options.seed);
        std::vector<Tensor> outputs;
        const Trace trace = simulated(plan, images, &outputs);
        for (ThreadPool* pool : {static_cast<ThreadPool*>(nullptr), &two, &three}) {
          const auto different = first_difference(plan, trace, images, outputs, pool);
          EXPECT_FALSE(different.has_value())
              << "batch " << batch << ": " << different.value_or("");
        }
      }
    }
  }
}

// Values that fall on rounding boundaries, saturate, or are no numbers.
TEST(Exactness, OddInputs) {
  const testing::TinyVit options;
  const testing::Model model = testing::tiny_vit(options);
  const Plan plan = lower(model.graph, model.plan);
  Tensor images = testing::random_images(options, 2, 1);
  auto x = images.as<float>();
  for (size_t i = 0; i < x.size(); ++i) x[i] *= i % 3 == 0 ? 1e3f : i % 3 == 1 ? 0.0f : 1e-40f;
  x[5] = std::numeric_limits<float>::quiet_NaN();
  x[6] = std::numeric_limits<float>::infinity();
  x[7] = -std::numeric_limits<float>::infinity();
  std::vector<Tensor> outputs;
  const Trace trace = simulated(plan, images, &outputs);
  EXPECT_FALSE(first_difference(plan, trace, images, outputs, nullptr).has_value());
}

template <class T> void change_first(Plan& plan, const std::string& name, T by) {
  T& value = plan.tensors.at(name).data.as<T>()[0];
  value = static_cast<T>(value + by);
}

TEST(Exactness, OneConstantOffByOneIsSeen) {
  testing::TinyVit options;
  options.activation_bits = 8;
  options.weight_bits = 8;
  options.pre_gelu = true;
  const testing::Model model = testing::tiny_vit(options);
  const Plan plan = lower(model.graph, model.plan);
  const Tensor images = testing::random_images(options, 3, 23);
  std::vector<Tensor> outputs;
  const Trace trace = simulated(plan, images, &outputs);
  ASSERT_FALSE(first_difference(plan, trace, images, outputs, nullptr).has_value());

  // A sum is 1 larger: the float output of that layer shows it, whatever follows.
  Plan wrong = plan;
  change_first<int32_t>(wrong, "blocks.1.attn.proj.c", 1);
  EXPECT_EQ(first_difference(wrong, trace, images, outputs, nullptr).value_or(""),
            "blocks.1.attn.proj");

  wrong = plan;  // the level of probabilities near 1
  change_first<uint8_t>(wrong, "blocks.0.attn.mha.lut", -1);
  EXPECT_EQ(first_difference(wrong, trace, images, outputs, nullptr).value_or(""),
            "blocks.0.attn.mha");

  wrong = plan;  // every entry of a code table
  for (uint8_t& code : wrong.tensors.at("blocks.0.mlp.fc1.lut").data.as<uint8_t>()) code ^= 1;
  EXPECT_EQ(first_difference(wrong, trace, images, outputs, nullptr).value_or(""),
            "blocks.0.mlp.fc1");

  wrong = plan;  // one weight
  wrong.tensors.at("head.w").data.as<uint8_t>()[0] ^= 1;
  EXPECT_EQ(first_difference(wrong, trace, images, outputs, nullptr).value_or(""), "head");
}

}  // namespace
}  // namespace repquant
