// Single steps against their formulas, written out in double or in integers.
#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "repquant/lower/plan_builder.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

using lowering::PlanBuilder;

// A plan around a few steps: codes come in through "quantize" with inv 1, so an input f32 is a
// code.
class StepTest : public ::testing::Test {
 protected:
  int input(const Shape& item) {
    const int buffer = b_.add_real("in" + std::to_string(inputs_.size()), item);
    b_.plan().inputs.push_back(buffer);
    Shape batch = item;
    batch.insert(batch.begin(), 1);
    inputs_.emplace_back(DType::kF32, batch);
    return buffer;
  }
  int code_input(const Shape& item, int bits) {
    const int real = input(item);
    for (float& v : inputs_.back().as<float>()) v = static_cast<float>(random_() % (1u << bits));
    const int out = b_.add_buffer("codes", DType::kU8, item, bits);
    Step& step = b_.add_step("quantize", "codes", {real}, out);
    step.ints = {{"zero", 0}, {"lo", 0}, {"hi", (1 << bits) - 1}};
    b_.add_vector(step, "inv", std::vector<float>{1.0f});
    return out;
  }
  void fill_normal(float deviation = 1.0f) {
    std::normal_distribution<float> normal(0.0f, deviation);
    for (float& v : inputs_.back().as<float>()) v = normal(random_);
  }
  std::vector<float> normal(size_t count, float mean, float deviation) {
    std::normal_distribution<float> distribution(mean, deviation);
    std::vector<float> values(count);
    for (float& v : values) v = distribution(random_);
    return values;
  }
  // The output of buffer `out` as floats (codes are dequantized with scale 1).
  std::vector<float> run(int out) {
    if (b_.buffer(out).dtype == DType::kU8) {
      const int real = b_.add_real("result", b_.buffer(out).item_shape);
      Step& step = b_.add_step("dequantize", "result", {out}, real);
      step.ints["zero"] = 0;
      b_.add_vector(step, "s", std::vector<float>{1.0f});
      out = real;
    }
    b_.plan().outputs = {out};
    const Tensor result = Simulator(b_.plan()).run(inputs_)[0];
    return {result.as<float>().begin(), result.as<float>().end()};
  }
  std::span<const float> in(size_t i) const { return inputs_[i].as<float>(); }

  PlanBuilder b_;
  std::vector<Tensor> inputs_;
  std::mt19937 random_{11};
};

TEST_F(StepTest, QuantizeRoundsHalfToEven) {
  const int x = input({8});
  const std::vector<float> values = {0.5f, 1.5f, 2.5f, -0.5f, -100.0f, 100.0f, NAN, 3.2f};
  std::copy(values.begin(), values.end(), inputs_[0].as<float>().begin());
  const int out = b_.add_buffer("q", DType::kU8, {8}, 4);
  Step& step = b_.add_step("quantize", "q", {x}, out);
  step.ints = {{"zero", 3}, {"lo", 0}, {"hi", 15}};
  b_.add_vector(step, "inv", std::vector<float>{1.0f});
  EXPECT_EQ(run(out), (std::vector<float>{3, 5, 5, 3, 0, 15, 0, 6}));
}

TEST_F(StepTest, QuantizeLogCountsThresholds) {
  const int x = input({6});
  const std::vector<float> values = {2.0f, 0.75f, 0.74f, 0.3f, -0.5f, -0.25f};
  std::copy(values.begin(), values.end(), inputs_[0].as<float>().begin());
  const int out = b_.add_buffer("q", DType::kU8, {6}, 2);
  Step& step = b_.add_step("quantize_log", "q", {x}, out);
  b_.add_vector(step, "shift", std::vector<float>{0.25f});
  b_.add_vector(step, "thr", std::vector<float>{1.0f, 0.5f, 0.125f});
  EXPECT_EQ(run(out), (std::vector<float>{0, 0, 1, 1, 3, 3}));
}

TEST_F(StepTest, TableMapsCodes) {
  const int a = code_input({40}, 8);
  std::vector<uint8_t> lut(256);
  for (size_t i = 0; i < 256; ++i) lut[i] = static_cast<uint8_t>(i * 7 + 3);
  const int out = b_.add_buffer("t", DType::kU8, {40}, 8);
  b_.add_vector(b_.add_step("table", "t", {a}, out), "lut", lut);
  const auto got = run(out);
  for (size_t i = 0; i < 40; ++i) EXPECT_EQ(got[i], float(lut[static_cast<size_t>(in(0)[i])]));
}

TEST_F(StepTest, LinearWithZeroPointsAndResidual) {
  const int64_t rows = 5, k = 37, n = 6;
  for (const int bits : {2, 3, 4, 8}) {
    b_ = PlanBuilder();
    inputs_.clear();
    const int a = code_input({rows, k}, 4);
    const int r = input({rows, n});
    fill_normal();
    const int half = 1 << (bits - 1);
    std::vector<int8_t> w(static_cast<size_t>(n * k));
    for (int8_t& v : w) v = static_cast<int8_t>(static_cast<int>(random_() % (2u * half)) - half);
    std::vector<int32_t> c, zw;
    for (int64_t i = 0; i < n; ++i) {
      c.push_back(static_cast<int32_t>(random_() % 1000) - 500);
      zw.push_back(static_cast<int32_t>(random_() % 5) - 2);
    }
    const std::vector<float> s = normal(6, 0.01f, 0.001f), bias = normal(6, 0.0f, 1.0f);
    const int out = b_.add_real("y", {rows, n});
    Step& step = b_.add_step("linear", "y", {a, r}, out);
    b_.add_weights(step, w, n, k, bits);
    step.ints["za"] = 5;
    b_.add_vector(step, "c", c);
    b_.add_vector(step, "zw", zw);
    b_.add_vector(step, "s", s);
    b_.add_vector(step, "b", bias);
    const auto got = run(out);
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t row = i / 6, o = i % 6;
      int64_t t = c[o];
      for (size_t j = 0; j < 37; ++j) {
        const int64_t code = static_cast<int64_t>(in(0)[row * 37 + j]);
        t += code * w[o * 37 + j] - zw[o] * (code - 5);
      }
      EXPECT_EQ(got[i], in(1)[i] + std::fma(static_cast<float>(t), s[o], bias[o])) << bits;
    }
  }
}

TEST_F(StepTest, LinearRequantizes) {
  const int a = code_input({3, 20}, 8);
  std::vector<int8_t> w(80);
  for (int8_t& v : w) v = static_cast<int8_t>(static_cast<int>(random_() % 256) - 128);
  const int out = b_.add_buffer("y", DType::kU8, {3, 4}, 4);
  Step& step = b_.add_step("linear", "y", {a}, out);
  b_.add_weights(step, w, 4, 20, 8);
  step.ints = {{"za", 0}, {"zero", 7}, {"lo", 1}, {"hi", 15}};
  const std::vector<float> m = {1e-4f, 2e-4f, 3e-4f, 4e-4f};
  b_.add_vector(step, "c", std::vector<int32_t>{100, -100, 0, 5000});
  b_.add_vector(step, "m", m);
  const auto got = run(out);
  const std::vector<int32_t> c = {100, -100, 0, 5000};
  for (size_t i = 0; i < got.size(); ++i) {
    int64_t t = c[i % 4];
    for (size_t j = 0; j < 20; ++j)
      t += static_cast<int64_t>(in(0)[i / 4 * 20 + j]) * w[i % 4 * 20 + j];
    const double v = std::nearbyint(static_cast<double>(static_cast<float>(t) * m[i % 4]));
    EXPECT_EQ(got[i], std::clamp(v + 7.0, 1.0, 15.0));
  }
}

// In double; f32 sums of 40 terms and a few roundings stay within 1e-5 of the row's size.
TEST_F(StepTest, Norms) {
  for (const bool layer : {true, false}) {
    b_ = PlanBuilder();
    inputs_.clear();
    const int x = input({4, 40});
    fill_normal(2.0f);
    const std::vector<float> g = normal(40, 1.0f, 0.2f), beta = normal(40, 0.0f, 0.2f);
    const int out = b_.add_real("y", {4, 40});
    Step& step = b_.add_step(layer ? "layer_norm" : "rms_norm", "y", {x}, out);
    b_.add_vector(step, "g", g);
    b_.add_vector(step, "beta", beta);
    b_.add_vector(step, "eps", std::vector<float>{1e-3f});
    const auto got = run(out);
    for (size_t row = 0; row < 4; ++row) {
      double mean = 0.0, squares = 0.0;
      for (size_t i = 0; layer && i < 40; ++i)
        mean += static_cast<double>(in(0)[row * 40 + i]) / 40.0;
      for (size_t i = 0; i < 40; ++i)
        squares += std::pow(static_cast<double>(in(0)[row * 40 + i]) - mean, 2) / 40.0;
      for (size_t i = 0; i < 40; ++i) {
        const double unit =
            (static_cast<double>(in(0)[row * 40 + i]) - mean) / std::sqrt(squares + 1e-3);
        EXPECT_NEAR(got[row * 40 + i], unit * g[i] + beta[i], 1e-5);
      }
    }
  }
}

// Scores and sums are small integers here, so the formula in double differs from the f32 law by
// less than 1e-5; a probability that close to a threshold would show as a failure (none with this
// seed).
TEST_F(StepTest, AttentionKinds) {
  const size_t tokens = 6, width = 8, size = 4;
  struct Kind {
    std::string codes, pv;
  };
  for (const Kind& kind : {Kind{"log", "table"}, Kind{"log", "table2"}, Kind{"log", "parity"},
                           Kind{"uniform", "plain"}, Kind{"row", "row"}}) {
    SCOPED_TRACE(kind.pv);
    b_ = PlanBuilder();
    inputs_.clear();
    const int q = code_input({6, 8}, 4), k = code_input({6, 8}, 4), v = code_input({6, 8}, 4);
    const int out = b_.add_real("y", {6, 8});
    Step& step = b_.add_step("attention", "y", {q, k, v}, out);
    step.ints = {{"heads", 2}, {"zq", 7}, {"zk", 8}, {"zv", 6}, {"phi", 15}};
    step.strings = {{"codes", kind.codes}, {"pv", kind.pv}};
    const std::vector<float> m = {0.02f, 0.03f}, mo = {0.5f, 0.25f};
    b_.add_vector(step, "m", m);
    b_.add_vector(step, "mo", mo);
    const int count = 5;
    std::vector<float> thr;
    std::vector<double> level;
    for (int i = 0; i < count; ++i)
      thr.push_back(static_cast<float>(0.5 * std::exp2(-(i + 0.5) / 2)));
    const double one = kind.pv == "table" ? 255 : kind.pv == "table2" ? 16384 : 1;
    std::vector<uint8_t> lut8;
    std::vector<uint16_t> lut16;
    for (int i = 0; i <= count; ++i) {
      double value = i == count ? 0.0 : one * std::exp2(-i / 2.0);
      if (kind.pv != "parity") value = std::nearbyint(value);
      level.push_back(value);
      lut8.push_back(static_cast<uint8_t>(value));
      lut16.push_back(static_cast<uint16_t>(value));
    }
    if (kind.codes == "log") b_.add_vector(step, "thr", thr);
    if (kind.pv == "table") b_.add_vector(step, "lut", lut8);
    if (kind.pv == "table2") b_.add_vector(step, "lut", lut16);
    if (kind.codes == "uniform") b_.add_vector(step, "pinv", std::vector<float>{15.0f});
    const auto got = run(out);
    for (size_t at = 0; at < got.size(); ++at) {
      const size_t row = at / width, h = at % width / size;
      std::vector<double> p(tokens);
      double most = -1e30, sum = 0.0, u = 0.0, total = 0.0;
      for (size_t j = 0; j < tokens; ++j) {
        for (size_t d = h * size; d < (h + 1) * size; ++d) {
          p[j] += (static_cast<double>(in(0)[row * width + d]) - 7.0) *
                  (static_cast<double>(in(1)[j * width + d]) - 8.0);
        }
        p[j] *= static_cast<double>(m[h]);
        most = std::max(most, p[j]);
      }
      for (double& x : p) sum += x = std::exp(x - most);
      for (size_t j = 0; j < tokens; ++j) {
        double weight = std::nearbyint(255.0 * p[j]);
        if (kind.codes == "uniform") weight = std::min(15.0, std::nearbyint(p[j] / sum * 15.0));
        if (kind.codes == "log") {
          size_t code = 0;
          for (const float t : thr) code += p[j] / sum < static_cast<double>(t) ? 1 : 0;
          weight = level[code];
        }
        u += weight * (static_cast<double>(in(2)[j * width + at % width]) - 6.0);
        total += weight;
      }
      if (kind.pv == "row") u /= total;
      EXPECT_NEAR(got[at], u * static_cast<double>(mo[h]), 1e-6 * (1.0 + std::fabs(u)));
    }
  }
}

TEST_F(StepTest, MovesCopy) {
  const int x = input({2, 3, 4});
  for (size_t i = 0; i < 24; ++i) inputs_[0].as<float>()[i] = static_cast<float>(i);
  const int moved = b_.add_real("moved", {4, 6});
  Step& move = b_.add_step("transpose", "moved", {x}, moved);
  move.lists = {{"dims", {2, 3, 4}}, {"perm", {2, 0, 1}}};
  const int cut = b_.add_real("cut", {4, 2});
  b_.add_step("slice", "cut", {moved}, cut).lists["range"] = {1, 1, 5, 2};
  const int out = b_.add_real("front", {5, 2});
  b_.add_tensor(b_.add_step("prepend", "front", {cut}, out), "const",
                Tensor::of<float>({1, 2}, std::vector<float>{-1.0f, -2.0f}));
  // moved[c][a*3+b] = 12a + 4b + c; columns 1 (a 0, b 1) and 3 (a 1, b 0)
  EXPECT_EQ(run(out), (std::vector<float>{-1, -2, 4, 12, 5, 13, 6, 14, 7, 15}));
}

TEST_F(StepTest, ElementWiseAndMean) {
  const int x = input({18, 3}), y = input({18, 3});
  fill_normal();
  std::copy(in(1).rbegin(), in(1).rend(), inputs_[0].as<float>().begin());
  const int sum = b_.add_real("sum", {18, 3}), scaled = b_.add_real("scaled", {18, 3});
  b_.add_step("add", "sum", {x, y}, sum);
  const std::vector<float> factor = {2.0f, -1.0f, 0.5f};
  b_.add_vector(b_.add_step("mul", "scaled", {sum}, scaled), "const", factor);
  const int mean = b_.add_real("mean", {3});
  b_.add_step("mean_rows", "mean", {scaled}, mean);
  const auto got = run(mean);
  for (size_t c = 0; c < 3; ++c) {
    // 16 lanes in order, then halves: rows 16 and 17 join lanes 0 and 1.
    float lane[16] = {};
    for (size_t row = 0; row < 18; ++row) {
      lane[row % 16] += (in(0)[row * 3 + c] + in(1)[row * 3 + c]) * factor[c];
    }
    for (const size_t width : {8u, 4u, 2u, 1u}) {
      for (size_t l = 0; l < width; ++l) lane[l] += lane[l + width];
    }
    EXPECT_EQ(got[c], lane[0] / 18.0f);
  }
}

TEST_F(StepTest, Activations) {
  const int x = input({64});
  fill_normal(2.0f);
  const int out = b_.add_real("y", {64});
  b_.add_step("activation", "y", {x}, out).strings["kind"] = "gelu_erf";
  const auto got = run(out);
  for (size_t i = 0; i < 64; ++i) {
    const double v = static_cast<double>(in(0)[i]);
    EXPECT_NEAR(got[i], 0.5 * v * (1.0 + std::erf(v / std::sqrt(2.0))),
                1e-6);  // |x|/2 * 1.5e-7 and roundings
  }
}

}  // namespace
}  // namespace repquant
