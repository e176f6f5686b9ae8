#include "repquant/core/example_plan.h"

#include "repquant/core/format/log.h"
#include "repquant/core/format/uniform.h"

namespace repquant {
namespace {

class Builder {
 public:
  int buffer(const std::string& name, Shape shape, int bits) {
    plan.buffers.push_back({name, bits == 32 ? DType::kF32 : DType::kU8, std::move(shape), bits});
    return static_cast<int>(plan.buffers.size()) - 1;
  }

  Step& step(const std::string& op, const std::string& name, std::vector<int> in, int out) {
    Step step;
    step.op = op;
    step.name = name;
    step.in = std::move(in);
    step.out = {out};
    plan.steps.push_back(std::move(step));
    return plan.steps.back();
  }

  template <class T>
  void tensor(Step& step, const std::string& role, Shape shape, const std::vector<T>& values) {
    place(step, role).data = Tensor::of(std::move(shape), values);
  }
  void floats(Step& step, const std::string& role, const std::vector<float>& values) {
    tensor(step, role, {static_cast<int64_t>(values.size())}, values);
  }
  void codes_out(Step& step, int64_t zero, int bits) {
    step.ints.insert({{"zero", zero}, {"lo", 0}, {"hi", (1 << bits) - 1}});
  }
  void norm(Step& step, size_t channels) {
    floats(step, "g", values(channels, 8.0f));
    if (step.op == "layer_norm") floats(step, "beta", values(channels, -1.0f));
    floats(step, "eps", {1e-6f});
  }

  // Weights [n][k] of `bits`, with all constants of a code output (or of a float output).
  Step& linear(const std::string& name, std::vector<int> in, int out, int64_t n, int64_t k,
               int bits, bool codes) {
    Step& s = step("linear", name, std::move(in), out);
    std::vector<int8_t> w;
    const int limit = 1 << (bits - 1);
    for (int64_t i = 0; i < n * k; ++i)
      w.push_back(static_cast<int8_t>((i * 7 + 3) % (2 * limit) - limit));
    PlanTensor& packed = place(s, "w");
    packed.data = pack_weights(w, n, k, bits);
    packed.layout = layout_for(bits);
    packed.bits = bits;
    packed.logical_shape = {n, k};
    std::vector<int32_t> c;
    for (int64_t i = 0; i < n; ++i) c.push_back(static_cast<int32_t>(11 * i) - 40);
    tensor(s, "c", {n}, c);
    s.ints["za"] = 3;
    const size_t count = static_cast<size_t>(n);
    if (codes) {
      floats(s, "m", values(count, 0.004f));
      codes_out(s, 100, 8);
    } else {
      floats(s, "s", values(count, 0.01f));
      floats(s, "b", values(count, -0.5f));
    }
    return s;
  }

  static std::vector<float> values(size_t count, float first) {
    std::vector<float> list;
    for (size_t i = 0; i < count; ++i)
      list.push_back(first * (1.0f + 0.03f * static_cast<float>(i)));
    return list;
  }

  Plan plan;

 private:
  PlanTensor& place(Step& step, const std::string& role) {
    const std::string name = step.name + "." + role;
    step.tensors[role] = name;
    PlanTensor& tensor = plan.tensors[name];
    tensor.name = name;
    tensor.role = role;
    return tensor;
  }
};

// Quantized tokens to attention output [5, 8], added to the residual.
int add_attention(Builder& b, int input) {
  const int codes = b.buffer("codes", {5, 8}, 8);
  Step& quantize = b.step("quantize", "quantize", {input}, codes);
  b.floats(quantize, "inv", {20.0f});
  b.codes_out(quantize, 120, 8);
  const int qkv = b.buffer("qkv", {5, 24}, 8);
  Step& linear = b.linear("qkv", {codes}, qkv, 24, 8, 8, true);
  b.tensor(linear, "zw", {24}, std::vector<int32_t>(24, 2));
  std::vector<int> parts;
  for (int i = 0; i < 3; ++i) {
    parts.push_back(b.buffer("part" + std::to_string(i), {5, 8}, 8));
    b.step("slice", "slice" + std::to_string(i), {qkv}, parts.back()).lists["range"] = {
        1, 8 * i, 8 * i + 8, 1};
  }
  const int mixed = b.buffer("mixed", {5, 8}, 8);
  Step& attention = b.step("attention", "attention", parts, mixed);
  attention.ints = {{"heads", 2}, {"zq", 100}, {"zk", 100}, {"zv", 100}};
  attention.strings = {{"codes", "log"}, {"pv", "table"}};
  b.codes_out(attention, 90, 8);
  b.floats(attention, "m", {0.001f, 0.002f});
  b.floats(attention, "mo", {0.004f});
  b.floats(attention, "thr", log_thresholds(0.9, 2.0, 15));
  b.tensor(attention, "lut", {16}, log_table8(2.0, 15));
  const int sum = b.buffer("sum", {5, 8}, 32);
  b.linear("projection", {mixed, input}, sum, 8, 8, 5, false);
  return sum;
}

// Norm, 4-bit and 3-bit weights around a shifted log code.
int add_mlp(Builder& b, int input) {
  const int normed = b.buffer("normed", {5, 8}, 4);
  Step& norm = b.step("layer_norm", "norm", {input}, normed);
  b.norm(norm, 8);
  b.codes_out(norm, 8, 4);
  const int wide = b.buffer("wide", {5, 16}, 32), active = b.buffer("active", {5, 16}, 32);
  b.linear("fc1", {normed}, wide, 16, 8, 4, false);
  b.step("activation", "gelu", {wide}, active).strings["kind"] = "gelu_erf";
  const int codes = b.buffer("log", {5, 16}, 4), levels = b.buffer("levels", {5, 16}, 8);
  Step& log = b.step("quantize_log", "log", {active}, codes);
  b.floats(log, "shift", {0.16997124f});
  b.floats(log, "thr", log_thresholds(3.0, 2.0, 15));
  Step& table = b.step("table", "levels", {codes}, levels);
  std::vector<uint8_t> lut = log_table8(2.0, 15);
  lut.resize(256, 0);
  b.tensor(table, "lut", {256}, lut);
  const int narrow = b.buffer("narrow", {5, 8}, 32), sum = b.buffer("sum2", {5, 8}, 32);
  b.linear("fc2", {levels}, narrow, 8, 16, 3, false);
  b.step("add", "residual", {narrow, input}, sum);
  return sum;
}

}  // namespace

Plan example_plan() {
  Builder b;
  const int image = b.buffer("image", {8, 4}, 32), rows = b.buffer("rows", {4, 8}, 32);
  b.plan.inputs = {image};
  Step& transpose = b.step("transpose", "transpose", {image}, rows);
  transpose.lists = {{"dims", {8, 4}}, {"perm", {1, 0}}};
  const int tokens = b.buffer("tokens", {5, 8}, 32), placed = b.buffer("placed", {5, 8}, 32);
  b.tensor(b.step("prepend", "class", {rows}, tokens), "const", {1, 8}, Builder::values(8, 0.3f));
  b.tensor(b.step("add", "position", {tokens}, placed), "const", {5, 8},
           Builder::values(40, 0.02f));
  const int sum = add_mlp(b, add_attention(b, placed));
  const int scaled = b.buffer("scaled", {5, 8}, 32), normed = b.buffer("final", {5, 8}, 32);
  b.floats(b.step("mul", "scale", {sum}, scaled), "const", Builder::values(8, 1.1f));
  b.norm(b.step("rms_norm", "final", {scaled}, normed), 8);
  const int pooled = b.buffer("pooled", {8}, 32), codes = b.buffer("head_in", {8}, 2);
  b.step("mean_rows", "pool", {normed}, pooled);
  Step& quantize = b.step("quantize", "head_in", {pooled}, codes);
  b.floats(quantize, "inv", {0.5f});
  b.codes_out(quantize, 1, 2);
  const int logits = b.buffer("logits", {3}, 32), levels = b.buffer("echo", {8}, 32);
  b.linear("head", {codes}, logits, 3, 8, 2, false);
  Step& dequantize = b.step("dequantize", "echo", {codes}, levels);
  b.floats(dequantize, "s", {2.0f});
  dequantize.ints["zero"] = 1;
  b.plan.outputs = {logits, levels};
  b.plan.model = {{"family", "example"}, {"class_names", {"a", "b", "c"}}};
  b.plan.quality = {{"sqnr_db", 21.5}};
  b.plan.provenance = {{"tool", "repquant"}, {"seed", 0}};
  return std::move(b.plan);
}

}  // namespace repquant
