// softmax, l2_norm, matmul, copy_rows, and attention over windows with bias and mask.
#include <gtest/gtest.h>

#include "repquant/runtime/testing_ops.h"

namespace repquant {
namespace {

using testing::AttentionForm;
using testing::check;
using testing::PlanBuilder;

TEST(OpsRows, SoftmaxAndL2Norm) {
  for (const int64_t channels : {1, 5, 16, 33, 131}) {
    const Shape shape{3, 7, channels};
    PlanBuilder first(700);
    const int x = first.input("x", shape);
    check(first.finish(first.step("softmax", {x}, DType::kF32, shape, 32)), -60.0f, 60.0f);
    PlanBuilder second(701);
    const int y = second.step("l2_norm", {second.input("x", shape)}, DType::kF32, shape, 32);
    second.last().ints["width"] = channels == 33 ? 11 : channels;
    second.real("eps", channels == 5 ? 4.0f : 1e-12f);  // 4: above the size of some rows
    check(second.finish(second.step("softmax", {y}, DType::kF32, shape, 32)));
  }
}

TEST(OpsRows, MatmulWithConstant) {
  uint64_t seed = 720;
  for (const int64_t columns : {1, 15, 16, 40, 64, 131}) {
    for (const int64_t depth : {1, 37}) {
      PlanBuilder b(++seed);
      const int x = b.input("x", {2, 13, depth});
      const int y = b.step("matmul", {x}, DType::kF32, {2, 13, columns}, 32);
      b.tensor("weight",
               Tensor::of<float>({depth, columns}, b.random.reals(depth * columns, -1, 1)));
      if (columns % 2 == 1) b.reals("b", columns, -1, 1);
      check(b.finish(y));
    }
  }
}

TEST(OpsRows, MatmulOfTwoActivations) {
  PlanBuilder b(740);
  const int x = b.input("x", {4, 9, 21});
  const int turned = b.transpose(x, {4, 9, 21}, {0, 2, 1}, {4, 21, 9});
  const int y = b.step("matmul", {x, turned}, DType::kF32, {4, 9, 9}, 32);
  check(b.finish(b.step("matmul", {y, x}, DType::kF32, {4, 9, 21}, 32)));
}

TEST(OpsRows, CopyRows) {
  PlanBuilder b(750);
  const int x = b.input("x", {4, 3, 17});
  std::vector<int32_t> index;
  for (int i = 0; i < 20; ++i) index.push_back(i < 9 ? i + 2 : (i * 7) % 12);
  const int y = b.step("copy_rows", {x}, DType::kF32, {2, 10, 17}, 32);
  b.last().ints["width"] = 17;
  b.tensor("index", Tensor::of<int32_t>({20}, index));
  const int q = b.quantize(y, 5);
  const int z = b.step("copy_rows", {q}, DType::kU8, {25}, 6);
  b.last().ints["width"] = 5;
  b.tensor("index", Tensor::of<int32_t>({5}, std::vector<int32_t>{19, 0, 3, 3, 4}));
  check(b.finish(z));
}

// Every kind of codes; bias and mask shared or one a window; one query of the first window has no
// key at all.
TEST(OpsRows, AttentionOverWindows) {
  uint64_t seed = 800;
  const std::vector<AttentionForm> forms = {
      {2, "log", "table", 15, 2.0, false, 4},  {3, "log", "table2", 31, 2.0, true, 0},
      {1, "log", "parity", 15, 2.0, false, 4}, {2, "uniform", "plain", 15, 0, true, 8},
      {3, "row", "row", 255, 0, true, 8},      {1, "row", "row", 255, 0, false, 0},
  };
  for (const AttentionForm& form : forms) {
    for (const int64_t tokens : {4, 21, 64}) {
      for (const int kind : {0, 1, 2}) {
        if (tokens == 64 && (kind != 1 || form.codes == "row")) continue;
        PlanBuilder b(++seed);
        const int64_t windows = 3, width = form.heads * (tokens == 21 ? 5 : 12);
        const int x = b.input("x", {windows, tokens, width});
        const int q = b.quantize(x, 4, 2.0f), k = b.quantize(x, 8), v = b.quantize(x, 6);
        const int y = b.attention(q, k, v, form);
        const int64_t bias_windows = kind == 1 ? windows : 1,
                      bias_heads = kind == 0 ? 1 : form.heads,
                      count = bias_windows * bias_heads * tokens * tokens;
        if (kind != 2 || tokens != 64)
          b.tensor("bias", Tensor::of<float>({bias_windows, bias_heads, tokens, tokens},
                                             b.random.reals(count, -3, 3)));
        if (kind != 0) {
          const int64_t mask_windows = kind == 1 ? 1 : windows;
          std::vector<uint8_t> mask(static_cast<size_t>(mask_windows * tokens * tokens));
          for (uint8_t& keep : mask) keep = static_cast<uint8_t>(b.random.integer(0, 3) != 0);
          std::fill_n(mask.begin() + tokens, tokens, uint8_t{0});
          b.tensor("mask", Tensor::of<uint8_t>({mask_windows, tokens, tokens}, mask));
        }
        check(b.finish(y));
      }
    }
  }
}

TEST(OpsRows, AttentionTermsOfWrongShapeAreRefused) {
  PlanBuilder b(900);
  const int x = b.input("x", {3, 4, 8});
  const int q = b.quantize(x, 4);
  const int y = b.attention(q, q, q, {2, "row", "row", 255, 0, false, 0});
  b.tensor("bias", Tensor::of<float>({3, 2, 4, 4}, b.random.reals(96, -1, 1)));
  b.tensor("mask", Tensor::of<uint8_t>({1, 4, 4}, std::vector<uint8_t>(16, 1)));
  const Plan good = b.finish(y);
  verify_plan(good);
  const std::string step = good.steps[1].name;
  const auto refused = [&](auto&& change) {
    Plan plan = good;
    change(plan);
    EXPECT_THROW(verify_plan(plan), Error);
  };
  refused([&](Plan& p) { p.tensors.at(step + ".bias").data.reshape({2, 3, 4, 4}); });
  refused([&](Plan& p) { p.tensors.at(step + ".bias").data.reshape({3, 4, 2, 4}); });
  refused([&](Plan& p) { p.tensors.at(step + ".bias").data.as<float>()[5] = INFINITY; });
  refused([&](Plan& p) { p.tensors.at(step + ".mask").data.reshape({1, 2, 8}); });
  refused([&](Plan& p) { p.tensors.at(step + ".mask").data.as<uint8_t>()[3] = 2; });
  refused([&](Plan& p) { p.buffers[1].item_shape = {4, 3, 8}; });
}

}  // namespace
}  // namespace repquant
