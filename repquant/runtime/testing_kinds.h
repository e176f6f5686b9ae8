#pragma once
// For tests: small plans around one step each, every op of core/plan.h in its forms.
#include <string>
#include <vector>

#include "repquant/core/format/functions.h"
#include "repquant/runtime/testing.h"

namespace repquant::testing {

struct KindPlan {
  std::string name;
  Plan plan;
  size_t step;  // of plan.steps: the one the plan is about
};

// Collects plans; `make` adds steps to the builder and returns the result's buffer, the step of
// interest being the last then.
class KindPlans {
 public:
  template <class Make> void add(const std::string& name, Make&& make) {
    PlanBuilder b(900 + all.size());
    const int result = make(b);
    const size_t step = b.plan.steps.size() - 1;
    all.push_back({name, b.finish(result), step});
  }
  std::vector<KindPlan> all;
};

inline void add_code_kinds(KindPlans& kinds) {
  for (const int bits : {1, 4, 8}) {
    kinds.add("quantize", [=](PlanBuilder& b) { return b.quantize(b.input("x", {3, 37}), bits); });
    kinds.add("quantize_log", [=](PlanBuilder& b) {
      return b.quantize_log(b.input("x", {3, 37}), bits);
    });
  }
  for (const char* kind : {"gelu_erf", "leaky_relu", "clip"}) {
    kinds.add("quantize of a function", [=](PlanBuilder& b) {
      const int q = b.quantize(b.input("x", {3, 37}), 8);
      b.last().strings["kind"] = kind;
      const int count = function_law(*function_kind(kind)).parameters;
      if (count == 1) b.real("p", 0.1f);
      if (count == 2) b.tensor("p", Tensor::of<float>({2}, {-0.5f, 1.5f}));
      return q;
    });
  }
  kinds.add("table", [](PlanBuilder& b) {
    return b.table(b.quantize(b.input("x", {3, 37}), 8), 5);
  });
  kinds.add("dequantize", [](PlanBuilder& b) {
    return b.dequantize(b.quantize(b.input("x", {3, 37}), 8));
  });
}

// The operands of a product over windows, by what comes out and how many bits weights have.
inline int add_window_product(PlanBuilder& b, const std::string& op, int residual, int out_bits,
                              int weight_bits, int64_t n) {
  const int q = b.quantize(b.input("image", {5, 6, 7}), 8);
  const bool f32 = out_bits == 0;
  std::vector<int> in{q};
  if (residual >= 0) in.push_back(residual);
  const int y = b.step(op, in, f32 ? DType::kF32 : DType::kU8, {3, 3, n}, f32 ? 32 : out_bits);
  b.windows({3, 2}, {2, 2}, {1, 0, 1, 0}, {1, 1});
  b.weights(n, op == "conv" ? 42 : 6, weight_bits);
  b.tensor("c", Tensor::of<int32_t>({n}, std::vector<int32_t>(static_cast<size_t>(n), -90)));
  b.tensor("zw", Tensor::of<int32_t>({n}, std::vector<int32_t>(static_cast<size_t>(n), 1)));
  b.last().ints["za"] = b.zero_of(q);
  b.reals(f32 ? "s" : "m", n, 1e-3f, 4e-3f);
  if (f32) b.reals("b", n, -1.0f, 1.0f);
  else b.codes(out_bits);
  return y;
}

inline void add_product_kinds(KindPlans& kinds) {
  for (const int bits : {2, 3, 4, 8}) {
    kinds.add("linear to codes", [=](PlanBuilder& b) {
      return b.linear(b.quantize(b.input("x", {3, 37}), bits), {19, bits, bits, bits % 2 == 0});
    });
    kinds.add("linear with residual", [=](PlanBuilder& b) {
      const int r = b.input("r", {3, 19});
      return b.linear(b.quantize(b.input("x", {3, 37}), bits), {19, bits, 0, bits % 2 == 1, r});
    });
  }
  kinds.add("linear with a table", [](PlanBuilder& b) {
    const int y = b.linear(b.quantize(b.input("x", {3, 37}), 8), {19, 8, 8});
    b.lut(4);
    return y;
  });
  kinds.add("patches", [](PlanBuilder& b) {
    const int q = b.quantize(b.input("image", {5, 6, 7}), 8);
    const int y = b.step("patches", {q}, DType::kU8, {3, 3, 42}, 8);
    b.windows({3, 2}, {2, 2}, {1, 0, 1, 0}, {1, 1});
    b.last().ints["fill"] = 9;
    return y;
  });
  for (const int bits : {4, 8}) {
    kinds.add("conv to codes",
              [=](PlanBuilder& b) { return add_window_product(b, "conv", -1, bits, bits, 19); });
    kinds.add("conv with residual", [=](PlanBuilder& b) {
      const int r = b.input("r", {3, 3, 19});
      return add_window_product(b, "conv", r, 0, bits, 19);
    });
    kinds.add("depthwise", [=](PlanBuilder& b) {
      return add_window_product(b, "depthwise", -1, bits == 4 ? 0 : 8, 8, 7);
    });
  }
  for (const bool codes : {false, true}) {
    kinds.add("pad", [=](PlanBuilder& b) {
      const int x = b.input("x", {3, 4, 5});
      const int from = codes ? b.quantize(x, 6) : x;
      const int y =
          b.step("pad", {from}, codes ? DType::kU8 : DType::kF32, {4, 4, 8}, codes ? 6 : 32);
      b.last().lists = {{"before", {1, 0, 2}}, {"after", {0, 0, 1}}};
      if (codes) b.last().ints["fill"] = 7;
      return y;
    });
  }
}

inline void add_attention_kinds(KindPlans& kinds) {
  const std::vector<AttentionForm> forms = {
      {2, "log", "table", 15, 2.0, false, 4}, {1, "log", "table2", 31, 2.0, true, 0},
      {2, "log", "parity", 15, 2.0, true, 4}, {2, "uniform", "plain", 15, 0, false, 8},
      {2, "row", "row", 255, 0, true, 0},
  };
  for (const AttentionForm& form : forms) {
    kinds.add("attention", [=](PlanBuilder& b) {
      const int x = b.input("x", {7, 10});
      const int q = b.quantize(x, 4), k = b.quantize(x, 8), v = b.quantize(x, 6);
      return b.attention(q, k, v, form);
    });
    kinds.add("attention of many keys", [=](PlanBuilder& b) {
      const int x = b.input("x", {70, 16});
      const int q = b.quantize(x, 4), k = b.quantize(x, 4), v = b.quantize(x, 4);
      return b.attention(q, k, v, form);
    });
    kinds.add("attention over windows", [=](PlanBuilder& b) {
      const int q = b.quantize(b.input("x", {2, 5, 6}), 4);
      const int y = b.attention(q, q, q, form);
      const int64_t count = 2 * form.heads * 25;
      b.tensor("bias", Tensor::of<float>({2, form.heads, 5, 5}, b.random.reals(count, -1, 1)));
      std::vector<uint8_t> mask(25, 1);
      mask[3] = mask[9] = 0;
      std::fill_n(mask.begin() + 10, 5, uint8_t{0});
      b.tensor("mask", Tensor::of<uint8_t>({1, 5, 5}, mask));
      return y;
    });
  }
}

inline void add_row_kinds(KindPlans& kinds) {
  for (const char* op : {"layer_norm", "rms_norm"}) {
    for (const int bits : {0, 8}) {
      kinds.add(op, [=](PlanBuilder& b) { return b.norm(op, b.input("x", {5, 37}), bits); });
    }
  }
  kinds.add("rms_norm without beta", [](PlanBuilder& b) {
    return b.norm("rms_norm", b.input("x", {5, 37}), 0, false);
  });
  kinds.add("l2_norm", [](PlanBuilder& b) {
    const int y = b.step("l2_norm", {b.input("x", {3, 36})}, DType::kF32, {3, 36}, 32);
    b.last().ints["width"] = 18;
    b.real("eps", 1e-12f);
    return y;
  });
  kinds.add("softmax", [](PlanBuilder& b) {
    return b.step("softmax", {b.input("x", {5, 37})}, DType::kF32, {5, 37}, 32);
  });
  kinds.add("matmul with a constant", [](PlanBuilder& b) {
    const int y = b.step("matmul", {b.input("x", {5, 11})}, DType::kF32, {5, 37}, 32);
    b.tensor("weight", Tensor::of<float>({11, 37}, b.random.reals(11 * 37, -1, 1)));
    b.reals("b", 37, -1, 1);
    return y;
  });
  kinds.add("matmul", [](PlanBuilder& b) {
    const int x = b.input("x", {2, 5, 11}), w = b.input("w", {2, 11, 37});
    return b.step("matmul", {x, w}, DType::kF32, {2, 5, 37}, 32);
  });
  kinds.add("gather_rows", [](PlanBuilder& b) {
    const int i = b.input("i", {6});
    b.plan.buffers[static_cast<size_t>(i)].dtype = DType::kI64;
    b.plan.buffers[static_cast<size_t>(i)].bits = 64;
    const int y = b.step("gather_rows", {i}, DType::kF32, {6, 5}, 32);
    b.tensor("table", Tensor::of<float>({7, 5}, b.random.reals(35, -2, 2)));
    return y;
  });
  kinds.add("cast", [](PlanBuilder& b) {
    const int i = b.input("i", {37});
    b.plan.buffers[static_cast<size_t>(i)].dtype = DType::kI32;
    return b.step("cast", {i}, DType::kF32, {37}, 32);
  });
}

inline void add_element_kinds(KindPlans& kinds) {
  for (const FunctionLaw& law : kFunctionLaws) {
    kinds.add("activation " + std::string(law.name), [&](PlanBuilder& b) {
      const int y = b.activation(b.input("x", {3, 37}), std::string(law.name));
      if (law.parameters == 1) b.real("p", 0.05f);
      if (law.parameters == 2) b.tensor("p", Tensor::of<float>({2}, {0.2f, 0.5f}));
      return y;
    });
  }
  for (const std::string_view kind : kBinaryNames) {
    kinds.add("binary " + std::string(kind), [=](PlanBuilder& b) {
      const int x = b.input("x", {2, 1, 19}), w = b.input("w", {3, 19});
      const int y = b.step("binary", {x, w}, DType::kF32, {2, 3, 19}, 32);
      b.last().strings["kind"] = kind;
      return y;
    });
  }
  kinds.add("binary with a constant", [](PlanBuilder& b) {
    const int y = b.step("binary", {b.input("x", {3, 37})}, DType::kF32, {3, 37}, 32);
    b.last().strings["kind"] = "rdiv";
    b.tensor("const", Tensor::of<float>({3, 1}, b.random.reals(3, 1, 2)));
    return y;
  });
  for (const std::string_view kind : kReduceNames) {
    for (const bool last : {false, true}) {
      kinds.add("reduce " + std::string(kind), [=](PlanBuilder& b) {
        const int y = b.step("reduce", {b.input("x", {19, 37})}, DType::kF32,
                             last ? Shape{19} : Shape{1, 37}, 32);
        b.last().strings["kind"] = kind;
        b.last().lists["axes"] = last ? std::vector<int64_t>{1, 1} : std::vector<int64_t>{0, 0};
        return y;
      });
    }
  }
  kinds.add("add", [](PlanBuilder& b) {
    const int x = b.input("x", {3, 37}), y = b.input("y", {3, 37});
    return b.step("add", {x, y}, DType::kF32, {3, 37}, 32);
  });
  for (const char* op : {"add", "mul"}) {
    for (const Shape& shape : {Shape{37}, Shape{3, 37}}) {
      kinds.add(std::string(op) + " with a constant", [=](PlanBuilder& b) {
        const int y = b.step(op, {b.input("x", {3, 37})}, DType::kF32, {3, 37}, 32);
        b.tensor("const", Tensor::of<float>(shape, b.random.reals(element_count(shape), -2, 2)));
        return y;
      });
    }
  }
  kinds.add("mean_rows", [](PlanBuilder& b) {
    return b.step("mean_rows", {b.input("x", {19, 37})}, DType::kF32, {37}, 32);
  });
}

// Steps that copy, on floats and on codes.
inline void add_movement_kinds(KindPlans& kinds) {
  for (const bool codes : {false, true}) {
    const DType type = codes ? DType::kU8 : DType::kF32;
    const int bits = codes ? 5 : 32;
    const auto input = [=](PlanBuilder& b, const Shape& shape) {
      const int x = b.input("x" + std::to_string(b.plan.inputs.size()), shape);
      return codes ? b.quantize(x, 5) : x;
    };
    kinds.add("copy_rows", [=](PlanBuilder& b) {
      const int y = b.step("copy_rows", {input(b, {6, 9})}, type, {5, 9}, bits);
      b.last().ints["width"] = 9;
      b.tensor("index", Tensor::of<int32_t>({5}, std::vector<int32_t>{5, 0, 1, 2, 2}));
      return y;
    });
    kinds.add("concat", [=](PlanBuilder& b) {
      const int x = input(b, {3, 4, 5}), w = input(b, {3, 2, 5});
      const int y = b.step("concat", {x, w, x}, type, {3, 10, 5}, bits);
      b.last().ints["axis"] = 1;
      return y;
    });
    kinds.add("prepend", [=](PlanBuilder& b) {
      const int y = b.step("prepend", {input(b, {3, 5})}, type, {5, 5}, bits);
      b.tensor("const", codes ? Tensor::of<uint8_t>({2, 5}, std::vector<uint8_t>(10, 9))
                              : Tensor::of<float>({2, 5}, b.random.reals(10, -1, 1)));
      return y;
    });
    kinds.add("slice", [=](PlanBuilder& b) {
      return b.slice(input(b, {3, 9, 5}), {1, 2, 8, 3}, {3, 2, 5});
    });
    kinds.add("transpose", [=](PlanBuilder& b) {
      return b.transpose(input(b, {3, 4, 10}), {3, 4, 2, 5}, {2, 0, 3, 1}, {6, 20});
    });
    kinds.add("max_pool", [=](PlanBuilder& b) {
      const int y = b.step("max_pool", {input(b, {5, 6, 7})}, type, {3, 3, 7}, bits);
      b.windows({3, 2}, {2, 2}, {1, 0, 1, 0}, {1, 1});
      return y;
    });
  }
  for (const int64_t include : {0, 1}) {
    kinds.add("average_pool", [=](PlanBuilder& b) {
      const int x = b.input("x", {5, 6, 7});
      const int y = b.step("average_pool", {x}, DType::kF32, {3, 3, 7}, 32);
      b.windows({3, 2}, {2, 2}, {1, 0, 1, 0}, {1, 1});
      b.last().ints["include_pad"] = include;
      return y;
    });
  }
}

inline std::vector<KindPlan> every_kind() {
  KindPlans kinds;
  add_code_kinds(kinds);
  add_product_kinds(kinds);
  add_attention_kinds(kinds);
  add_row_kinds(kinds);
  add_element_kinds(kinds);
  add_movement_kinds(kinds);
  return std::move(kinds.all);
}

}  // namespace repquant::testing
