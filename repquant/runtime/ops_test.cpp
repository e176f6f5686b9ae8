// Every op against the naive executor, bit for bit, for every instruction set this machine has,
// threads 1, 2, 3 and batches 1, 3, 8.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "repquant/runtime/testing_ops.h"

namespace repquant {
namespace {

using testing::AttentionForm;
using testing::check;
using testing::expect_equal;
using testing::Items;
using testing::LinearForm;
using testing::PlanBuilder;
using testing::programs_of;
using testing::random_items;

TEST(Ops, Quantize) {
  for (const int bits : {2, 4, 8}) {
    PlanBuilder b(static_cast<uint64_t>(bits));
    const int x = b.input("x", {9, 1237});
    check(b.finish(b.quantize(x, bits)));
  }
}

TEST(Ops, QuantizeTiesAndNarrow) {
  PlanBuilder b(1);
  const int x = b.input("x", {400});
  const int q = b.quantize(x, 8, 0.5f);
  b.last().ints = {{"zero", 100}, {"lo", 1}, {"hi", 254}};
  const auto program = Program::from_plan(b.finish(q));
  std::vector<float> values(400), y(400);
  for (int i = 0; i < 400; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i - 200);
  const Shape shape{1, 400};
  const ConstTensorView in{values.data(), DType::kF32, shape};
  const TensorView out{y.data(), DType::kF32, shape};
  Session session(program);
  session.run_tapped({&in, 1}, {&out, 1}, [&](const Step& step, int, ConstTensorView value) {
    if (step.op != "quantize") return;
    for (int i = 0; i < 400; ++i) {  // x/2 has its ties at odd x: half to even
      const double half = (i - 200) / 2.0, down = std::floor(half);
      double rounded = half - down < 0.5 ? down : down + 1;
      if (half - down == 0.5) rounded = std::fmod(down, 2.0) == 0.0 ? down : down + 1;
      const double wanted = std::min(std::max(rounded, 1.0 - 100.0), 254.0 - 100.0) + 100.0;
      ASSERT_EQ(value.as<uint8_t>()[static_cast<size_t>(i)], wanted) << half;
    }
  });
}

struct WindowForm {
  int64_t height, width, channels;
  std::vector<int64_t> kernel, strides, pads, dilations;
};

const std::vector<WindowForm> kWindows = {
    {9, 7, 5, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
    {12, 12, 32, {3, 3}, {2, 2}, {0, 0, 1, 1}, {1, 1}},
    {8, 11, 70, {1, 1}, {1, 1}, {0, 0, 0, 0}, {1, 1}},
    {10, 10, 3, {5, 2}, {3, 1}, {2, 0, 2, 1}, {1, 1}},
    {9, 9, 16, {3, 3}, {1, 2}, {2, 2, 2, 2}, {2, 2}},
    {6, 7, 128, {3, 5}, {1, 1}, {1, 2, 1, 2}, {1, 1}},
    {4, 3, 8, {4, 4}, {1, 1}, {3, 3, 3, 3}, {1, 1}},
    {5, 6, 60, {3, 3}, {1, 2}, {1, 1, 1, 1}, {1, 1}},
};

Shape windows_of(const WindowForm& f, int64_t depth) {
  const auto along = [&](size_t i, int64_t size) {
    return (size + f.pads[i] + f.pads[i + 2] - f.dilations[i] * (f.kernel[i] - 1) - 1) /
               f.strides[i] +
           1;
  };
  return {along(0, f.height), along(1, f.width), depth};
}

TEST(Ops, ConvolutionByPatches) {
  for (const WindowForm& f : kWindows) {
    PlanBuilder b(60);
    const int x = b.input("x", {f.height, f.width, f.channels});
    const int q = b.quantize(x, 4);
    const int p = b.step("patches", {q}, DType::kU8,
                         windows_of(f, f.kernel[0] * f.kernel[1] * f.channels), 4);
    b.windows(f.kernel, f.strides, f.pads, f.dilations);
    b.last().ints["fill"] = b.zero_of(q);
    b.zeros[p] = b.zero_of(q);
    check(b.finish(b.linear(p, {9, 4, 4, true})));
  }
}

// The operands of a `conv` step over buffer `q`.
int add_conv(PlanBuilder& b, int q, const WindowForm& f, const LinearForm& form) {
  const int64_t k = f.kernel[0] * f.kernel[1] * f.channels, n = form.n;
  std::vector<int> in{q};
  if (form.residual >= 0) in.push_back(form.residual);
  const bool f32 = form.out_bits == 0;
  const int y = b.step("conv", in, f32 ? DType::kF32 : DType::kU8, windows_of(f, n),
                       f32 ? 32 : form.out_bits);
  b.windows(f.kernel, f.strides, f.pads, f.dilations);
  std::vector<int32_t> c = b.weights(n, k, form.weight_bits), zw(c.size());
  for (int32_t& v : c) v = static_cast<int32_t>(b.random.integer(-50, 50) - b.zero_of(q) * v);
  for (int32_t& v : zw) v = static_cast<int32_t>(b.random.integer(-2, 2));
  b.tensor("c", Tensor::of<int32_t>({n}, c));
  if (form.asymmetric) b.tensor("zw", Tensor::of<int32_t>({n}, zw));
  b.last().ints["za"] = b.zero_of(q);
  const float spread = std::sqrt(static_cast<float>(k)) * 0.25f *
                       static_cast<float>(1 << (b.bits(q) + form.weight_bits - 1));
  b.reals(f32 ? "s" : "m", n, 0.5f / spread, f32 ? 2.0f / spread : 20.0f / spread);
  if (f32) b.reals("b", n, -0.3f, 0.3f);
  else b.codes(form.out_bits);
  return y;
}

TEST(Ops, Convolution) {
  for (const WindowForm& f : kWindows) {
    for (const int bits : {3, 4, 8}) {
      PlanBuilder b(63);
      const int x = b.input("x", {f.height, f.width, f.channels});
      const int q = b.quantize(x, bits);
      LinearForm form{f.channels % 3 == 0 ? 80 : 9, bits, 5, bits % 4 != 0};
      add_conv(b, q, f, form);
      form.out_bits = 0;
      form.asymmetric = !form.asymmetric;
      form.residual = add_conv(b, q, f, form);
      check(b.finish(add_conv(b, q, f, form)));
    }
  }
}

TEST(Ops, TableBehindAProduct) {
  for (const int weight_bits : {4, 8}) {
    PlanBuilder b(64);
    const int q = b.quantize(b.input("x", {7, 9, 16}), 8);
    const int y = add_conv(b, q, {7, 9, 16, {3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}},
                           {70, weight_bits, 8, false});
    b.lut(4);
    const int z = b.linear(y, {40, weight_bits, 8, true});
    b.lut(6);
    check(b.finish(z));
  }
}

TEST(Ops, Depthwise) {
  for (const WindowForm& f : kWindows) {
    for (const int out_bits : {0, 4}) {
      PlanBuilder b(61);
      const int x = b.input("x", {f.height, f.width, f.channels});
      const int q = b.quantize(x, 8);
      const int y = b.step("depthwise", {q}, out_bits == 0 ? DType::kF32 : DType::kU8,
                           windows_of(f, f.channels), out_bits == 0 ? 32 : out_bits);
      b.windows(f.kernel, f.strides, f.pads, f.dilations);
      b.weights(f.channels, f.kernel[0] * f.kernel[1], 8);
      b.last().ints["za"] = b.zero_of(q);
      std::vector<int32_t> c(static_cast<size_t>(f.channels)), zw = c;
      for (int32_t& v : c) v = static_cast<int32_t>(b.random.integer(-9000, 9000));
      for (int32_t& v : zw) v = static_cast<int32_t>(b.random.integer(-30, 30));
      b.tensor("c", Tensor::of<int32_t>({f.channels}, c));
      if (f.channels % 2 != 0) b.tensor("zw", Tensor::of<int32_t>({f.channels}, zw));
      b.reals(out_bits == 0 ? "s" : "m", f.channels, 1e-4f, 4e-4f);
      if (out_bits == 0) {
        b.reals("b", f.channels, -1.0f, 1.0f);
      } else {
        b.codes(out_bits);
      }
      check(b.finish(y));
    }
  }
}

// Rows of an image are copied with their padding: here 3 of 65537 pixels of 8192 codes.
TEST(Ops, DepthwiseRowsBeyondMemoryAreRefused) {
  PlanBuilder b(62);
  const int q = b.quantize(b.input("x", {3, 1, 8192}), 8);
  const int y = b.step("depthwise", {q}, DType::kF32, {1, 2, 8192}, 32);
  b.windows({3, 1}, {1, 65536}, {0, 65536, 0, 0}, {1, 1});
  b.weights(8192, 3, 8);
  b.last().ints["za"] = b.zero_of(q);
  b.tensor("c", Tensor::of<int32_t>({8192}, std::vector<int32_t>(8192)));
  b.reals("s", 8192, 1e-4f, 4e-4f);
  b.reals("b", 8192, -1.0f, 1.0f);
  const Plan plan = b.finish(y);
  for (const std::string& isa : runtime::available_isas()) {
    try {
      (void)Program::from_plan(plan, {.isa = isa});
      FAIL() << isa;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported) << error.what();
      EXPECT_NE(std::string(error.what()).find("bytes under a row of windows"), std::string::npos)
          << error.what();
    }
  }
}

TEST(Ops, Pad) {
  PlanBuilder b(62);
  const int x = b.input("x", {5, 3, 4});
  const int y = b.step("pad", {x}, DType::kF32, {5, 6, 11}, 32);
  b.last().lists = {{"before", {0, 2, 3}}, {"after", {0, 1, 4}}};
  const int q = b.quantize(y, 8);
  const int z = b.step("pad", {q}, DType::kU8, {6, 6, 11}, 8);
  b.last().lists = {{"before", {1, 0, 0}}, {"after", {0, 0, 0}}};
  b.last().ints["fill"] = 7;
  check(b.finish(z));
}

TEST(Ops, LogTableAndDequantize) {
  for (const int bits : {3, 4, 5, 8}) {
    PlanBuilder b(static_cast<uint64_t>(bits) + 10);
    const int x = b.input("x", {5, 411});
    const int log = b.quantize_log(x, bits);
    check(b.finish(b.table(log, 8)), -0.3f, 4.0f);
  }
}

TEST(Ops, Linear) {
  uint64_t seed = 20;
  for (const int bits : {2, 3, 4, 6, 8}) {
    for (const int64_t k : {1, 15, 48, 193, 700}) {
      PlanBuilder b(++seed);
      const int x = b.input("x", {7, k});
      const int codes = b.quantize(x, bits == 6 ? 8 : bits);
      const int first = b.linear(codes, {35, bits, bits, k % 2 == 1});
      const int wide = b.linear(first, {70, bits, 0, k % 2 == 0});
      LinearForm residual{70, 8, 0};
      residual.residual = wide;
      check(b.finish(b.linear(first, residual)));
    }
  }
}

TEST(Ops, LinearExtremeCodes) {  // 255 against -128 over a long row: no sum may saturate
  PlanBuilder b(50);
  const int64_t k = 4096;
  const int x = b.input("x", {5, k});
  const int codes = b.quantize(x, 8, 1.0f);
  b.last().ints = {{"zero", 0}, {"lo", 0}, {"hi", 255}};
  const int y = b.linear(codes, {6, 8, 0, false});
  PlanTensor& w = b.plan.tensors.at(b.last().tensors.at("w"));
  w.data = pack_weights(std::vector<int8_t>(static_cast<size_t>(6 * k), -128), 6, k, 8);
  check(b.finish(y), 250.0f, 300.0f);
}

TEST(Ops, AttentionForms) {
  uint64_t seed = 100;
  const std::vector<AttentionForm> forms = {
      {2, "log", "table", 15, 2.0, false, 4},   {3, "log", "table", 15, 37.0 / 12, true, 8},
      {1, "log", "table2", 31, 2.0, true, 0},   {2, "log", "table2", 15, 1.0, false, 5},
      {2, "log", "parity", 15, 2.0, true, 4},   {1, "log", "parity", 31, 2.0, false, 0},
      {2, "uniform", "plain", 255, 0, true, 8}, {2, "uniform", "plain", 15, 0, false, 0},
      {3, "row", "row", 255, 0, true, 8},       {1, "row", "row", 255, 0, false, 0},
  };
  for (const AttentionForm& form : forms) {
    for (const int64_t tokens : {1, 17, 131}) {
      PlanBuilder b(++seed);
      const int64_t width = form.heads * (tokens == 17 ? 5 : 24);
      const int x = b.input("x", {tokens, width});
      const int q = b.quantize(x, 4, 2.0f), k = b.quantize(x, 8), v = b.quantize(x, 6);
      check(b.finish(b.attention(q, k, v, form)));
    }
  }
}

TEST(Ops, AttentionLongRows) {  // several key blocks, the last one ragged
  for (const char* pv : {"table2", "parity"}) {
    PlanBuilder b(140);
    const int x = b.input("x", {1100, 6});
    const int q = b.quantize(x, 2), k = b.quantize(x, 2), v = b.quantize(x, 8);
    AttentionForm form{1, "log", pv, 15, 2.0, false, 0};
    Plan plan = b.finish(b.attention(q, k, v, form));
    const Items items = random_items(plan, 1, -3, 3);
    ThreadPool three(3);
    const auto wanted = testing::Naive(plan).run(items[0]);
    for (const auto& program : programs_of(plan)) expect_equal(program, items, {wanted}, 1, &three);
  }
}

// Every level at its largest over 1100 keys: 2^14 * 255 * 1100 is beyond int32.
TEST(Ops, AttentionSumsBeyondInt32) {
  for (const char* pv : {"table2", "parity"}) {
    PlanBuilder b(141);
    const int x = b.input("x", {1100, 4});
    const int q = b.quantize(x, 2), k = b.quantize(x, 2), v = b.quantize(x, 8, 1.0f);
    b.last().ints = {{"zero", 0}, {"lo", 255}, {"hi", 255}};
    b.zeros[v] = 0;
    const int y = b.attention(q, k, v, {1, "log", pv, 29, 2.0, false, 0});
    b.tensor("thr", Tensor::of<float>({29}, log_thresholds(1e-6, 2.0, 29)));
    const Plan plan = b.finish(y);
    const Items items = random_items(plan, 1, -3, 3);
    const auto wanted = testing::Naive(plan).run(items[0]);
    const float mo = plan.tensor(plan.steps.back(), "mo").as<float>()[0];
    const float level = std::string(pv) == "parity" ? 1.0f : 16384.0f;
    EXPECT_EQ(wanted[static_cast<size_t>(plan.outputs[0])].f[0], level * 255.0f * 1100.0f * mo);
    for (const auto& program : programs_of(plan))
      expect_equal(program, items, {wanted}, 1, nullptr);
  }
}

TEST(Ops, AttentionZeroPointsOutsideTheCodes) {
  PlanBuilder b(150);
  const int x = b.input("x", {19, 16});
  const int q = b.quantize(x, 4), k = b.quantize(x, 4), v = b.quantize(x, 4);
  const int y = b.attention(q, k, v, {2, "log", "table", 15, 2.0, false, 0});
  b.last().ints["zv"] = -700;
  b.last().ints["zq"] = 300;
  check(b.finish(y));
}

TEST(Ops, Norms) {
  uint64_t seed = 200;
  for (const char* op : {"layer_norm", "rms_norm"}) {
    for (const int64_t channels : {1, 7, 16, 33, 192}) {
      for (const int bits : {0, 4, 8}) {
        PlanBuilder b(++seed);
        const int x = b.input("x", {21, channels});
        const int first = b.norm(op, x, bits);
        if (bits != 0) {
          check(b.finish(first));
          continue;
        }
        check(b.finish(b.norm(op, first, 0, std::string(op) == "layer_norm")));
      }
    }
  }
}

TEST(Ops, Activations) {
  for (const char* kind : {"gelu_erf", "gelu_tanh", "silu", "relu", "sigmoid", "tanh"}) {
    PlanBuilder b(300);
    const int x = b.input("x", {11, 613});
    check(b.finish(b.activation(x, kind)), -9.0f, 9.0f);
  }
}

TEST(Ops, AddMulMeanRows) {
  PlanBuilder b(310);
  const int x = b.input("x", {37, 70});
  int y = b.step("mul", {x}, DType::kF32, {37, 70}, 32);
  b.reals("const", 70, -2, 2);
  y = b.step("add", {y}, DType::kF32, {37, 70}, 32);
  b.tensor("const", Tensor::of<float>({37, 70}, b.random.reals(37 * 70, -2, 2)));
  y = b.step("add", {y, x}, DType::kF32, {37, 70}, 32);
  y = b.step("add", {y, y}, DType::kF32, {37, 70}, 32);
  check(b.finish(b.step("mean_rows", {y}, DType::kF32, {70}, 32)));
}

TEST(Ops, Movement) {
  PlanBuilder b(320);
  const int x = b.input("x", {3, 8, 12});
  int y = b.transpose(x, {3, 2, 4, 3, 4}, {1, 3, 0, 2, 4}, {6, 48});
  y = b.slice(y, {1, 5, 45, 3}, {6, 14});
  y = b.slice(y, {0, 1, 6, 2}, {3, 14});
  int q = b.quantize(y, 5);
  q = b.step("prepend", {q}, DType::kU8, {5, 14}, 5);
  b.tensor("const", Tensor::of<uint8_t>({2, 14}, std::vector<uint8_t>(28, 9)));
  q = b.transpose(q, {5, 7, 2}, {2, 1, 0}, {2, 35});
  q = b.transpose(q, {70}, {0}, {7, 10});
  q = b.transpose(q, {7, 10}, {1, 0}, {10, 7});
  check(b.finish(q));
}

TEST(Ops, WholeTransformer) {
  check(testing::make_vit({16, 4, 32, 2, 64, 10, 2, 4, false}, 400));
  check(testing::make_vit({16, 4, 48, 3, 80, 7, 2, 3, true}, 401));
  check(testing::make_vit({12, 4, 32, 1, 64, 10, 1, 8, true}, 402));
}

// One random change to a valid plan: refused at open, or executed as the laws say.
TEST(Ops, ChangedPlansAreRefusedOrExact) {
  const Plan original = testing::make_vit({8, 4, 16, 2, 24, 5, 1, 4, false}, 600);
  testing::Random random(601);
  const auto pick = [&](auto& map) {
    auto at = map.begin();
    std::advance(at, random.integer(0, static_cast<int64_t>(map.size()) - 1));
    return at;
  };
  int refused = 0, exact = 0;
  for (int round = 0; round < 1500; ++round) {
    Plan plan = original;
    Step& step = plan.steps[static_cast<size_t>(
        random.integer(0, static_cast<int64_t>(plan.steps.size()) - 1))];
    Buffer& buffer = plan.buffers[static_cast<size_t>(
        random.integer(0, static_cast<int64_t>(plan.buffers.size()) - 1))];
    const int64_t value =
        random.integer(0, 3) == 0 ? random.integer(-100'000, 100'000) : random.integer(-2, 17);
    const int64_t kind = random.integer(0, 6);
    if (kind == 0 && !step.ints.empty()) pick(step.ints)->second = value;
    if (kind == 1 && !step.lists.empty())
      pick(step.lists)->second[static_cast<size_t>(random.integer(0, 2))] = value;
    if (kind == 2) step.in[0] = static_cast<int>(value);
    if (kind == 3) buffer.item_shape[0] = value;
    if (kind == 4) buffer.bits = static_cast<int>(value);
    if (kind == 5 && !step.tensors.empty()) step.tensors.erase(pick(step.tensors));
    if (kind == 6 && !step.tensors.empty()) {
      Tensor& data = plan.tensors.at(pick(step.tensors)->second).data;
      auto* bytes = static_cast<uint8_t*>(data.data());
      bytes[random.integer(0, static_cast<int64_t>(data.bytes()) - 1)] ^=
          static_cast<uint8_t>(1 << random.integer(0, 7));
    }
    std::vector<std::shared_ptr<const Program>> programs;
    try {
      programs = programs_of(plan);
    } catch (const Error&) {
      ++refused;
      continue;
    }
    const Items items = random_items(plan, 1, -3, 3);
    const auto wanted = testing::Naive(plan).run(items[0]);
    for (const auto& program : programs) {
      expect_equal(program, items, {wanted}, 1, nullptr);
      ASSERT_FALSE(HasFatalFailure()) << "round " << round << " " << program->isa();
    }
    ++exact;
  }
  EXPECT_GT(refused, 200);
  EXPECT_GT(exact, 200);
}

TEST(Ops, SpecialInputsFollowTheLaw) {
  PlanBuilder b(500);
  const float inf = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {nan,     inf,     -inf,   0.0f,   -0.0f,  1e-40f,
                                     -1e-45f, 3.4e38f, -3e38f, 1e-20f, 0.375f, -0.375f,
                                     1.125f,  2.5f,    -2.5f,  8.0f};
  const int x = b.input("x", {16});
  const int y = b.activation(x, "gelu_erf");
  const int q = b.quantize(y, 4), log = b.quantize_log(x, 4);
  const int both = b.step("add", {b.dequantize(q), b.dequantize(log)}, DType::kF32, {16}, 32);
  const Plan plan = b.finish(both);
  const auto program = Program::from_plan(plan);
  const auto wanted = testing::Naive(plan).run({values});
  for (const auto& each : programs_of(plan)) expect_equal(each, {{values}}, {wanted}, 1, nullptr);
  std::vector<float> out(16);
  const Shape shape{1, 16};
  const ConstTensorView in{values.data(), DType::kF32, shape};
  const TensorView to{out.data(), DType::kF32, shape};
  Session session(program);
  EXPECT_EQ(session.non_finite_inputs(), 0);
  session.run({&in, 1}, {&to, 1});
  session.run({&in, 1}, {&to, 1});
  EXPECT_EQ(session.non_finite_inputs(), 6);
}

}  // namespace
}  // namespace repquant
