#pragma once
// For tests: plans built by hand with random operands. Deterministic by seed.
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "repquant/core/format/log.h"
#include "repquant/core/plan.h"
#include "repquant/core/random.h"

namespace repquant::testing {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() { return splitmix64(state_); }
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  float real(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f;
  }
  std::vector<float> reals(int64_t count, float low, float high) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = real(low, high);
    return values;
  }

 private:
  uint64_t state_;
};

struct LinearForm {
  int64_t n = 8;
  int weight_bits = 4, out_bits = 4;  // out_bits 0: f32 out
  bool asymmetric = true;
  int residual = -1;  // buffer added to an f32 output
};

struct AttentionForm {
  int64_t heads = 1;
  std::string codes = "log", pv = "table";
  int levels = 15;  // thresholds of log codes, phi of uniform codes
  double base = 2.0;
  bool per_head = false;
  int out_bits = 4;
};

class PlanBuilder {
 public:
  explicit PlanBuilder(uint64_t seed) : random(seed) {}

  Plan plan;
  Random random;
  std::map<int, int64_t> zeros;  // zero points of the code buffers, by buffer

  int64_t zero_of(int buffer) const {
    const auto found = zeros.find(buffer);
    return found == zeros.end() ? 0 : found->second;
  }

  int input(const std::string& name, Shape shape) {
    const int index = buffer(name, DType::kF32, std::move(shape), 32);
    plan.inputs.push_back(index);
    return index;
  }

  int buffer(const std::string& name, DType dtype, Shape shape, int bits) {
    plan.buffers.push_back({name, dtype, std::move(shape), bits});
    return static_cast<int>(plan.buffers.size()) - 1;
  }

  // A step named after its place, with an output buffer of the given kind; returns the buffer.
  int step(const std::string& op, std::vector<int> in, DType dtype, Shape shape, int bits) {
    Step made;
    made.op = op;
    made.name = fmt::format("{}.{}", plan.steps.size(), op);
    made.in = std::move(in);
    made.out = {buffer(made.name, dtype, std::move(shape), bits)};
    plan.steps.push_back(std::move(made));
    return plan.steps.back().out[0];
  }
  Step& last() { return plan.steps.back(); }
  const Shape& shape(int index) const {
    return plan.buffers[static_cast<size_t>(index)].item_shape;
  }
  int bits(int index) const { return plan.buffers[static_cast<size_t>(index)].bits; }

  void tensor(const std::string& role, Tensor data) {
    const std::string name = last().name + "." + role;
    last().tensors[role] = name;
    plan.tensors[name] = {name, std::move(data), "plain", 0, {}, role};
  }
  void real(const std::string& role, float value) { tensor(role, Tensor::of<float>({1}, {value})); }
  void reals(const std::string& role, int64_t count, float low, float high) {
    tensor(role, Tensor::of<float>({count}, random.reals(count, low, high)));
  }
  // Returns the sum of every row.
  std::vector<int32_t> weights(int64_t n, int64_t k, int bits_each) {
    std::vector<int8_t> codes(static_cast<size_t>(n * k));
    const int64_t limit = int64_t{1} << (bits_each - 1);
    for (int8_t& c : codes) c = static_cast<int8_t>(random.integer(-limit, limit - 1));
    const std::string name = last().name + ".w";
    last().tensors["w"] = name;
    plan.tensors[name] = {
        name, pack_weights(codes, n, k, bits_each), layout_for(bits_each), bits_each, {n, k}, "w"};
    std::vector<int32_t> sums(static_cast<size_t>(n));
    for (size_t i = 0; i < codes.size(); ++i) sums[i / static_cast<size_t>(k)] += codes[i];
    return sums;
  }
  // A zero point near the middle.
  void codes(int out_bits) {
    const int64_t top = (int64_t{1} << out_bits) - 1;
    last().ints["zero"] = random.integer(top / 3, (2 * top + 2) / 3);
    zeros[last().out[0]] = last().ints["zero"];
    last().ints["lo"] = 0;
    last().ints["hi"] = top;
  }

  int quantize(int in, int out_bits, float inv = 0.0f) {
    const int out = step("quantize", {in}, DType::kU8, shape(in), out_bits);
    real("inv", inv != 0.0f ? inv : static_cast<float>((1 << out_bits) - 1) / 6.0f);
    codes(out_bits);
    return out;
  }
  void windows(std::vector<int64_t> kernel, std::vector<int64_t> strides, std::vector<int64_t> pads,
               std::vector<int64_t> dilations) {
    last().lists = {{"kernel", std::move(kernel)},
                    {"strides", std::move(strides)},
                    {"pads", std::move(pads)},
                    {"dilations", std::move(dilations)}};
  }
  int dequantize(int in) {
    const int out = step("dequantize", {in}, DType::kF32, shape(in), 32);
    real("s", 0.037f);
    last().ints["zero"] = 3;
    return out;
  }
  int norm(const std::string& op, int in, int out_bits, bool beta = true) {
    const int64_t channels = shape(in).back();
    const bool f32 = out_bits == 0;
    const int out = step(op, {in}, f32 ? DType::kF32 : DType::kU8, shape(in), f32 ? 32 : out_bits);
    const float gain = f32 ? 1.0f : static_cast<float>(1 << out_bits) / 5.0f;
    reals("g", channels, 0.5f * gain, 1.5f * gain);
    if (beta) reals("beta", channels, -0.5f, 0.5f);
    real("eps", 1e-6f);
    if (!f32) codes(out_bits);
    return out;
  }

  int linear(int in, const LinearForm& form) {
    Shape to = shape(in);
    const int64_t k = to.back(), n = form.n;
    to.back() = n;
    const bool f32 = form.out_bits == 0;
    std::vector<int> ins{in};
    if (form.residual >= 0) ins.push_back(form.residual);
    const int out =
        step("linear", ins, f32 ? DType::kF32 : DType::kU8, to, f32 ? 32 : form.out_bits);
    std::vector<int32_t> c = weights(n, k, form.weight_bits), zw(static_cast<size_t>(n));
    const int64_t top = (int64_t{1} << bits(in)) - 1, za = zero_of(in);
    const int64_t bias = static_cast<int64_t>(std::sqrt(static_cast<double>(k)));
    for (int32_t& v : c) v = static_cast<int32_t>(random.integer(-bias, bias) - za * v);
    for (int32_t& v : zw) v = static_cast<int32_t>(random.integer(-1, 1));
    tensor("c", Tensor::of<int32_t>({n}, c));
    if (form.asymmetric) tensor("zw", Tensor::of<int32_t>({n}, zw));
    last().ints["za"] = za;
    // A typical sum has sqrt(k) terms of a/2 * w/2.
    const float spread = std::sqrt(static_cast<float>(k)) * static_cast<float>(top) * 0.25f *
                         static_cast<float>(1 << (form.weight_bits - 1));
    if (f32) {
      reals("s", n, 0.5f / spread, 2.0f / spread);
      reals("b", n, -0.3f, 0.3f);
    } else {
      const float steps = static_cast<float>(1 << form.out_bits) * 0.25f;
      reals("m", n, 0.5f * steps / spread, 2.0f * steps / spread);
      codes(form.out_bits);
    }
    return out;
  }

  int attention(int q, int k, int v, const AttentionForm& form) {
    const bool f32 = form.out_bits == 0;
    const int out = step("attention", {q, k, v}, f32 ? DType::kF32 : DType::kU8, shape(q),
                         f32 ? 32 : form.out_bits);
    const int64_t width = shape(q).back() / form.heads, count = form.per_head ? form.heads : 1;
    Step& made = last();
    made.ints = {{"heads", form.heads}, {"zq", zero_of(q)}, {"zk", zero_of(k)}, {"zv", zero_of(v)}};
    made.strings = {{"codes", form.codes}, {"pv", form.pv}};
    const float spread = std::sqrt(static_cast<float>(width)) * static_cast<float>(1 << bits(q)) *
                         static_cast<float>(1 << bits(k)) * 0.25f;
    reals("m", count, 1.0f / spread, 4.0f / spread);
    float unit = 255.0f;
    if (form.codes == "log") {
      tensor("thr", Tensor::of<float>({form.levels}, log_thresholds(0.9, form.base, form.levels)));
      if (form.pv == "table") {
        tensor("lut", Tensor::of<uint8_t>({form.levels + 1}, log_table8(form.base, form.levels)));
      } else if (form.pv == "table2") {
        tensor("lut", Tensor::of<uint16_t>({form.levels + 1}, log_table16(form.base, form.levels)));
        unit = 16384.0f;
      } else {
        unit = 1.0f;
      }
    } else if (form.codes == "uniform") {
      real("pinv", static_cast<float>(form.levels) * 4.0f);
      made.ints["plo"] = 0;
      made.ints["phi"] = form.levels;
      unit = static_cast<float>(form.levels) * 4.0f;
    } else {
      unit = 1.0f;
    }
    if (!f32) unit *= static_cast<float>(1 << bits(v)) / static_cast<float>(1 << form.out_bits);
    reals("mo", count, 1.0f / unit, 3.0f / unit);
    if (!f32) codes(form.out_bits);
    return out;
  }

  int activation(int in, const std::string& kind) {
    const int out = step("activation", {in}, DType::kF32, shape(in), 32);
    last().strings["kind"] = kind;
    return out;
  }
  int quantize_log(int in, int out_bits) {
    const int count = (1 << out_bits) - 1;
    const int out = step("quantize_log", {in}, DType::kU8, shape(in), out_bits);
    real("shift", 0.16997124f);
    tensor("thr", Tensor::of<float>({count}, log_thresholds(3.0, 2.0, count)));
    return out;
  }
  int table(int in, int out_bits) {
    const int out = step("table", {in}, DType::kU8, shape(in), out_bits);
    lut(out_bits);
    return out;
  }
  // Behind the 8-bit codes of the last step.
  void lut(int out_bits) {
    std::vector<uint8_t> entries(256);
    for (uint8_t& v : entries) v = static_cast<uint8_t>(random.integer(0, (1 << out_bits) - 1));
    tensor("lut", Tensor::of<uint8_t>({256}, entries));
    plan.buffers[static_cast<size_t>(last().out[0])].bits = out_bits;
  }
  int transpose(int in, const std::vector<int64_t>& dims, const std::vector<int64_t>& perm,
                Shape to) {
    const Buffer from = plan.buffers[static_cast<size_t>(in)];
    const int out = step("transpose", {in}, from.dtype, std::move(to), from.bits);
    last().lists = {{"dims", dims}, {"perm", perm}};
    return out;
  }
  int slice(int in, const std::vector<int64_t>& range, Shape to) {
    const Buffer from = plan.buffers[static_cast<size_t>(in)];
    const int out = step("slice", {in}, from.dtype, std::move(to), from.bits);
    last().lists = {{"range", range}};
    return out;
  }

  // Outputs are f32: codes are dequantized.
  Plan finish(int result) {
    const bool f32 = plan.buffers[static_cast<size_t>(result)].dtype == DType::kF32;
    plan.outputs = {f32 ? result : dequantize(result)};
    return std::move(plan);
  }
};

// A vision transformer of patches, pre-norm blocks and a head, all operands random.
struct VitForm {
  int64_t image = 16, patch = 4, width = 32, heads = 2, hidden = 64, classes = 10;
  int blocks = 2, bits = 4;
  bool table_gelu = false;
};

inline int add_block(PlanBuilder& b, int x, const VitForm& form) {
  const int normed = b.norm("layer_norm", x, form.bits);
  const LinearForm project{form.width, form.bits, form.bits};
  const int q = b.linear(normed, project), k = b.linear(normed, project),
            v = b.linear(normed, project);
  AttentionForm attention;
  attention.heads = form.heads;
  attention.out_bits = form.bits;
  const int mixed = b.attention(q, k, v, attention);
  LinearForm back{form.width, form.bits, 0};
  back.residual = x;
  x = b.linear(mixed, back);
  const int second = b.norm("layer_norm", x, form.bits);
  int hidden = 0;
  if (form.table_gelu) {
    hidden = b.table(b.linear(second, {form.hidden, form.bits, 8}), form.bits);
  } else {
    const int wide = b.linear(second, {form.hidden, form.bits, 0});
    hidden = b.quantize_log(b.activation(wide, "gelu_erf"), form.bits);
  }
  back.residual = x;
  return b.linear(hidden, back);
}

inline Plan make_vit(const VitForm& form, uint64_t seed) {
  PlanBuilder b(seed);
  const int64_t side = form.image / form.patch, depth = 3 * form.patch * form.patch;
  const int image = b.input("image", {3, form.image, form.image});
  const int codes = b.quantize(image, 8);
  const int patches = b.transpose(codes, {3, side, form.patch, side, form.patch}, {1, 3, 0, 2, 4},
                                  {side * side, depth});
  int x = b.linear(patches, {form.width, 8, 0});
  x = b.step("prepend", {x}, DType::kF32, {side * side + 1, form.width}, 32);
  b.tensor("const", Tensor::of<float>({1, form.width}, b.random.reals(form.width, -1, 1)));
  x = b.step("add", {x}, DType::kF32, {side * side + 1, form.width}, 32);
  const int64_t all = (side * side + 1) * form.width;
  b.tensor("const", Tensor::of<float>({side * side + 1, form.width}, b.random.reals(all, -1, 1)));
  for (int i = 0; i < form.blocks; ++i) x = add_block(b, x, form);
  x = b.slice(x, {0, 0, 1, 1}, {1, form.width});
  x = b.norm("layer_norm", x, form.bits);
  return b.finish(b.linear(x, {form.classes, form.bits, 0}));
}

}  // namespace repquant::testing
