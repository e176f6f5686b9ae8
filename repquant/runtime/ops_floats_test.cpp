// Steps between f32 buffers, joins, reductions and integer inputs against the naive executor.
#include <gtest/gtest.h>

#include "repquant/runtime/testing_ops.h"

namespace repquant {
namespace {

using testing::check;
using testing::PlanBuilder;

TEST(FloatOps, ActivationsWithParameters) {
  for (const FunctionLaw& law : kFunctionLaws) {
    PlanBuilder b(301);
    const int x = b.input("x", {7, 613});
    const int y = b.activation(x, std::string(law.name));
    if (law.parameters == 1) b.tensor("p", Tensor::of<float>({1}, {0.05f}));
    if (law.parameters == 2) b.tensor("p", Tensor::of<float>({2}, {0.2f, 0.5f}));
    // Roots and logarithms of positive numbers: other results are NaN, of which any will do.
    const bool positive = law.name == "log" || law.name == "sqrt" || law.name == "rsqrt";
    check(b.finish(y), positive ? 1e-3f : -9.0f, 9.0f);
  }
}

TEST(FloatOps, QuantizeFunctions) {
  for (const char* kind : {"leaky_relu", "gelu_erf", "hard_sigmoid"}) {
    PlanBuilder b(302);
    const int x = b.input("x", {11, 613});
    const int q = b.quantize(x, 8);
    b.last().strings["kind"] = kind;
    const int parameters = function_law(*function_kind(kind)).parameters;
    if (parameters > 0)
      b.tensor("p", Tensor::of<float>({parameters}, std::vector<float>(parameters, 0.2f)));
    check(b.finish(q), -9.0f, 9.0f);
  }
}

TEST(FloatOps, BinaryBroadcasts) {
  struct Case {
    Shape a, b, out;
  };
  const std::vector<Case> cases = {{{5, 7, 33}, {5, 7, 33}, {5, 7, 33}},
                                   {{5, 7, 33}, {33}, {5, 7, 33}},
                                   {{5, 7, 33}, {5, 1, 1}, {5, 7, 33}},
                                   {{1, 1, 64}, {6, 5, 64}, {6, 5, 64}},
                                   {{4, 1, 3}, {5, 1}, {4, 5, 3}},
                                   {{6, 1}, {1, 9}, {6, 9}},
                                   {{2, 3, 1, 5, 1}, {3, 4, 1, 2}, {2, 3, 4, 5, 2}},
                                   {{9000}, {9000}, {9000}},
                                   {{1}, {17}, {17}},
                                   {{1, 1}, {1}, {1, 1}}};
  for (const std::string_view kind : kBinaryNames) {
    for (const Case& c : cases) {
      for (const bool constant : {false, true}) {
        if (element_count(c.out) > 1000 && kind != "add" && kind != "max") continue;
        PlanBuilder b(330);
        const int x = b.input("x", c.a);
        std::vector<int> in{x};
        if (!constant) in.push_back(b.input("y", c.b));
        int y = b.step("binary", in, DType::kF32, c.out, 32);
        b.last().strings["kind"] = kind;
        if (constant) {
          const auto values = b.random.reals(element_count(c.b), 0.5f, 2.0f);
          b.tensor("const", Tensor::of<float>(c.b, values));
        }
        // Once more into the place of its operand.
        y = b.step("binary", {y, y}, DType::kF32, c.out, 32);
        b.last().strings["kind"] = "add";
        check(b.finish(y), 0.1f, 3.0f);
      }
    }
  }
}

TEST(FloatOps, Reduce) {
  struct Case {
    Shape in, out;
    std::vector<int64_t> axes;
  };
  const std::vector<Case> cases = {
      {{9, 7, 70}, {70}, {0, 1}},       {{9, 7, 70}, {1, 1, 70}, {0, 1}},
      {{9, 7, 70}, {9, 7}, {2, 2}},     {{5, 40, 3}, {5, 1, 3}, {1, 1}},
      {{3, 5, 7, 2}, {3}, {1, 3}},      {{131}, {1}, {0, 0}},
      {{2, 300, 130}, {2, 130}, {1, 1}}};
  for (const std::string_view kind : kReduceNames) {
    for (const Case& c : cases) {
      PlanBuilder b(340);
      const int x = b.input("x", c.in);
      const int y = b.step("reduce", {x}, DType::kF32, c.out, 32);
      b.last().strings["kind"] = kind;
      b.last().lists["axes"] = c.axes;
      check(b.finish(y));
    }
  }
}

TEST(FloatOps, Pools) {
  struct Case {
    Shape in, out;
    std::vector<int64_t> kernel, strides, pads;
  };
  const std::vector<Case> cases = {{{8, 9, 21}, {4, 4, 21}, {2, 2}, {2, 2}, {0, 0, 0, 0}},
                                   {{7, 6, 64}, {4, 3, 64}, {3, 3}, {2, 2}, {1, 1, 1, 1}},
                                   {{5, 4, 3}, {5, 4, 3}, {5, 2}, {1, 1}, {2, 1, 2, 0}}};
  for (const Case& c : cases) {
    for (const char* kind : {"max", "codes", "average", "average with pads"}) {
      PlanBuilder b(345);
      int x = b.input("x", c.in);
      const bool codes = kind == std::string("codes");
      const bool largest = codes || kind == std::string("max");
      if (codes) x = b.quantize(x, 6);
      const int y = b.step(largest ? "max_pool" : "average_pool", {x},
                           codes ? DType::kU8 : DType::kF32, c.out, codes ? 6 : 32);
      b.windows(c.kernel, c.strides, c.pads, {1, 1});
      if (!largest) b.last().ints["include_pad"] = kind == std::string("average") ? 0 : 1;
      check(b.finish(y));
    }
  }
}

TEST(FloatOps, NormsOverSeveralAxes) {
  for (const int bits : {0, 8}) {
    PlanBuilder b(346);
    const int x = b.input("x", {3, 5, 7});
    const int y = b.norm("layer_norm", x, bits);
    for (const char* role : {"g", "beta"})
      b.tensor(role, Tensor::of<float>({35}, b.random.reals(35, -2, 2)));
    check(b.finish(y));
  }
}

TEST(FloatOps, Concat) {
  PlanBuilder b(350);
  const int x = b.input("x", {4, 3, 5}), y = b.input("y", {4, 2, 5});
  const int z = b.step("concat", {x, y, x}, DType::kF32, {4, 8, 5}, 32);
  b.last().ints["axis"] = 1;
  const int q = b.quantize(z, 4), r = b.quantize(z, 8);
  const int last = b.step("concat", {q, r}, DType::kU8, {4, 8, 10}, 8);
  b.last().ints["axis"] = 2;
  check(b.finish(b.dequantize(last)));
}

TEST(FloatOps, IntegerInputs) {
  for (const DType dtype : {DType::kI64, DType::kI32}) {
    PlanBuilder b(360);
    const int t = b.input("t", {1}), y = b.input("y", {3});
    for (const int input : {t, y}) {
      b.plan.buffers[static_cast<size_t>(input)].dtype = dtype;
      b.plan.buffers[static_cast<size_t>(input)].bits = dtype == DType::kI64 ? 64 : 32;
    }
    const int time = b.step("cast", {t}, DType::kF32, {1}, 32);
    const int rows = b.step("gather_rows", {y}, DType::kF32, {3, 20}, 32);
    b.tensor("table", Tensor::of<float>({11, 20}, b.random.reals(220, -2, 2)));
    const int sum = b.step("binary", {rows, time}, DType::kF32, {3, 20}, 32);
    b.last().strings["kind"] = "mul";
    // Far outside of the table on both sides.
    check(b.finish(sum), -40.0f, 40.0f);
  }
}

}  // namespace
}  // namespace repquant
