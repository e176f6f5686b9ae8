#pragma once
// A second, obvious executor for the tests of this module: one item at a time, written from the
// laws of core/plan.h with the scalar functions of core/format, int64 sums, own loops for every
// order.
#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

#include "repquant/core/format/elementary.h"
#include "repquant/core/format/log.h"
#include "repquant/core/format/uniform.h"
#include "repquant/core/plan.h"
#include "repquant/runtime/testing_naive_floats.h"

namespace repquant::testing {

class Naive {
 public:
  explicit Naive(const Plan& plan) : plan_(plan), values_(plan.buffers.size()) {}

  // Inputs of one item, in plan order; integers as floats of their value. Returns every buffer.
  const std::vector<Value>& run(const std::vector<std::vector<float>>& inputs) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto buffer = static_cast<size_t>(plan_.inputs[i]);
      if (plan_.buffers[buffer].dtype == DType::kF32) values_[buffer].f = inputs[i];
      else values_[buffer].i.assign(inputs[i].begin(), inputs[i].end());
    }
    for (const Step& step : plan_.steps) evaluate(step);
    return values_;
  }

 private:
  const Value& in(const Step& step, size_t i) const {
    return values_[static_cast<size_t>(step.in[i])];
  }
  const Buffer& out_buffer(const Step& step) const {
    return plan_.buffers[static_cast<size_t>(step.out[0])];
  }
  const Shape& in_shape(const Step& step) const {
    return plan_.buffers[static_cast<size_t>(step.in[0])].item_shape;
  }
  float real(const Step& step, const char* role, int64_t i) const {
    const Tensor& t = plan_.tensor(step, role);
    return t.as<float>()[static_cast<size_t>(t.size() == 1 ? 0 : i)];
  }
  int32_t integer(const Step& step, const char* role, int64_t i) const {
    return plan_.tensor(step, role).as<int32_t>()[static_cast<size_t>(i)];
  }
  int32_t attribute(const Step& step, const char* key) const {
    return static_cast<int32_t>(plan_.integer(step, key));
  }
  uint8_t code(const Step& step, float v) const {
    return static_cast<uint8_t>(
        quantize_scaled(v, attribute(step, "zero"), attribute(step, "lo"), attribute(step, "hi")));
  }
  // Stores v by the output's type.
  void put(const Step& step, Value& to, float v) const {
    if (out_buffer(step).dtype == DType::kU8) to.q.push_back(code(step, v));
    else to.f.push_back(v);
  }

  static float lanes(const std::vector<float>& x) {
    float lane[16] = {};
    for (size_t i = 0; i < x.size(); ++i) lane[i % 16] = lane[i % 16] + x[i];
    for (int width : {8, 4, 2, 1}) {
      for (int l = 0; l < width; ++l) lane[l] = lane[l] + lane[l + width];
    }
    return lane[0];
  }

  void evaluate(const Step& step);
  void elementwise(const Step& step, Value& to) const;
  void linear(const Step& step, Value& to) const;
  void products(const Step& step, const std::vector<uint8_t>& a, int64_t k, Value& to) const;
  void attention(const Step& step, Value& to) const;
  std::vector<float> exponentials(const Step& step, int64_t head, int64_t row) const;
  float term(const Step& step, int64_t head, int64_t row, int64_t key) const;
  void mix_values(const Step& step, int64_t head, int64_t row, const std::vector<float>& e,
                  Value& to) const;
  void window(const Step& step, Value& to) const;  // patches, conv, depthwise
  void pad(const Step& step, Value& to) const;
  void norm(const Step& step, Value& to) const;
  bool rows(const Step& step, Value& to) const;  // testing_naive_rows.h
  void move(const Step& step, Value& to) const;

  const Plan& plan_;
  std::vector<Value> values_;
};

inline void Naive::elementwise(const Step& step, Value& to) const {
  const Value& x = in(step, 0);
  const size_t count = x.f.empty() ? x.q.size() : x.f.size();
  for (size_t i = 0; i < count; ++i) {
    if (step.op == "quantize") {
      to.q.push_back(code(step, NaiveFloats(plan_, step, values_).applied(x.f[i]) * real(step, "inv", 0)));
    } else if (step.op == "quantize_log") {
      to.q.push_back(static_cast<uint8_t>(
          log_code(x.f[i] + real(step, "shift", 0), plan_.tensor(step, "thr").as<float>())));
    } else if (step.op == "table") {
      to.q.push_back(plan_.tensor(step, "lut").as<uint8_t>()[x.q[i]]);
    } else if (step.op == "dequantize") {
      to.f.push_back(dequantize_uniform(x.q[i], real(step, "s", 0), attribute(step, "zero")));
    } else {
      float other = 0;
      if (step.in.size() == 2) {
        other = in(step, 1).f[i];
      } else {
        const std::span<const float> constant = plan_.tensor(step, "const").as<float>();
        other = constant[i % constant.size()];
      }
      to.f.push_back(step.op == "add" ? x.f[i] + other : x.f[i] * other);
    }
  }
}

inline void Naive::linear(const Step& step, Value& to) const {
  products(step, in(step, 0).q, in_shape(step).back(), to);
}

inline void Naive::products(const Step& step, const std::vector<uint8_t>& a, int64_t k,
                            Value& to) const {
  const std::vector<int8_t> w = unpack_weights(plan_.tensors.at(step.tensors.at("w")));
  const int64_t n = static_cast<int64_t>(w.size()) / k;
  const int64_t rows = static_cast<int64_t>(a.size()) / k, za = attribute(step, "za");
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < n; ++col) {
      int64_t t = integer(step, "c", col), sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        const int64_t value = a[static_cast<size_t>(row * k + i)];
        t += value * w[static_cast<size_t>(col * k + i)];
        sum += value - za;
      }
      if (step.tensors.contains("zw")) t -= integer(step, "zw", col) * sum;
      const auto wide = static_cast<float>(static_cast<int32_t>(t));
      if (out_buffer(step).dtype == DType::kU8) {
        uint8_t q = code(step, wide * real(step, "m", col));
        if (const Tensor* lut = plan_.find_tensor(step, "lut")) q = lut->as<uint8_t>()[q];
        to.q.push_back(q);
        continue;
      }
      const float y = std::fmaf(wide, real(step, "s", col), real(step, "b", col));
      to.f.push_back(step.in.size() == 2 ? in(step, 1).f[static_cast<size_t>(row * n + col)] + y
                                         : y);
    }
  }
}

// Rows are numbered through all windows.
inline void Naive::attention(const Step& step, Value& to) const {
  for (int64_t row = 0; row < element_count(in_shape(step)) / in_shape(step).back(); ++row) {
    for (int64_t head = 0; head < attribute(step, "heads"); ++head) {
      const std::vector<float> e = exponentials(step, head, row);
      mix_values(step, head, row, e, to);
    }
  }
}

// What is added to a score: -infinity for a key left out.
inline float Naive::term(const Step& step, int64_t head, int64_t row, int64_t key) const {
  const int64_t tokens = *(in_shape(step).end() - 2), window = row / tokens, query = row % tokens;
  const auto at = [&](int64_t plane) {
    return static_cast<size_t>((plane * tokens + query) * tokens + key);
  };
  float sum = 0.0f;
  if (const Tensor* bias = plan_.find_tensor(step, "bias")) {
    const int64_t w = bias->shape()[0] == 1 ? 0 : window, h = bias->shape()[1] == 1 ? 0 : head;
    sum = bias->as<float>()[at(w * bias->shape()[1] + h)];
  }
  if (const Tensor* mask = plan_.find_tensor(step, "mask")) {
    if (mask->as<uint8_t>()[at(mask->shape()[0] == 1 ? 0 : window)] == 0) return -INFINITY;
  }
  return sum;
}

inline std::vector<float> Naive::exponentials(const Step& step, int64_t head, int64_t row) const {
  const Shape& shape = in_shape(step);
  const int64_t tokens = shape[shape.size() - 2], all = shape.back(),
                width = all / attribute(step, "heads");
  const int64_t zq = attribute(step, "zq"), zk = attribute(step, "zk");
  const uint8_t* q = in(step, 0).q.data() + row * all + head * width;
  const uint8_t* k = in(step, 1).q.data() + row / tokens * tokens * all + head * width;
  std::vector<float> e;
  float most = -INFINITY;
  for (int64_t t = 0; t < tokens; ++t) {
    int64_t score = 0;
    for (int64_t d = 0; d < width; ++d) score += (q[d] - zq) * (k[t * all + d] - zk);
    const float added = term(step, head, row, t);
    e.push_back(static_cast<float>(score) * real(step, "m", head) + added);
    most = std::max(most, e.back());
  }
  for (float& v : e) v = v == -INFINITY ? 0.0f : exp_f32(v - most);
  return e;
}

inline void Naive::mix_values(const Step& step, int64_t head, int64_t row,
                              const std::vector<float>& e, Value& to) const {
  const std::string codes = step.strings.at("codes"), pv = step.strings.at("pv");
  const Shape& shape = in_shape(step);
  const int64_t all = shape.back(), width = all / attribute(step, "heads");
  const auto first = static_cast<size_t>(row / shape[shape.size() - 2] * shape[shape.size() - 2]);
  const int levels = codes == "log" ? static_cast<int>(plan_.tensor(step, "thr").size()) : 0;
  const float lane_total = lanes(e), sum = lane_total == 0.0f ? 1.0f : lane_total;
  std::vector<int> q;
  std::vector<int64_t> level;
  int64_t total = 0;
  for (const float v : e) {
    if (codes == "log") q.push_back(log_code(v / sum, plan_.tensor(step, "thr").as<float>()));
    else if (codes == "row") q.push_back(quantize_uniform(v, 255.0f, 0, 0, 255));
    else
      q.push_back(quantize_uniform(v / sum, real(step, "pinv", 0), 0, 0, attribute(step, "phi")));
    total += q.back();
    const auto at = static_cast<size_t>(q.back());
    if (pv == "table") level.push_back(plan_.tensor(step, "lut").as<uint8_t>()[at]);
    else if (pv == "table2") level.push_back(plan_.tensor(step, "lut").as<uint16_t>()[at]);
    else level.push_back(q.back());
  }
  const int32_t zv = attribute(step, "zv");
  for (int64_t d = 0; d < width; ++d) {
    int64_t acc = 0;
    ParitySums parity;
    for (size_t t = 0; t < e.size(); ++t) {
      const int32_t v =
          in(step, 2)
              .q[(first + t) * static_cast<size_t>(all) + static_cast<size_t>(head * width + d)] -
          zv;
      acc += level[t] * v;
      if (pv == "parity") parity_accumulate(parity, q[t], v, levels, parity_shift(levels));
    }
    float u = static_cast<float>(acc);
    if (pv == "parity") u = parity_combine(parity.even, parity.odd, parity_shift(levels));
    if (codes == "row") u = total == 0 ? 0.0f : u / static_cast<float>(total);
    put(step, to, u * real(step, "mo", head));
  }
}

inline void Naive::window(const Step& step, Value& to) const {
  const auto number = [&](const char* key, size_t i) { return step.lists.at(key).at(i); };
  const Shape &image = in_shape(step), &out = out_buffer(step).item_shape;
  const bool conv = step.op == "conv", patches = conv || step.op == "patches";
  const int32_t outside = attribute(step, step.op == "patches" ? "fill" : "za");
  std::vector<uint8_t> copied;
  const int64_t kh = number("kernel", 0), kw = number("kernel", 1);
  const auto at = [&](int64_t oy, int64_t ox, int64_t ky, int64_t kx, int64_t c) -> int32_t {
    const int64_t y = oy * number("strides", 0) + ky * number("dilations", 0) - number("pads", 0);
    const int64_t x = ox * number("strides", 1) + kx * number("dilations", 1) - number("pads", 1);
    if (y < 0 || x < 0 || y >= image[0] || x >= image[1]) return outside;
    return in(step, 0).q[static_cast<size_t>((y * image[1] + x) * image[2] + c)];
  };
  std::vector<int8_t> w;
  if (!patches) w = unpack_weights(plan_.tensors.at(step.tensors.at("w")));
  for (int64_t place = 0; place < out[0] * out[1]; ++place) {
    const int64_t oy = place / out[1], ox = place % out[1];
    for (int64_t k = 0; patches && k < kh * kw; ++k) {
      for (int64_t c = 0; c < image[2]; ++c)
        copied.push_back(static_cast<uint8_t>(at(oy, ox, k / kw, k % kw, c)));
    }
    for (int64_t c = 0; !patches && c < image[2]; ++c) {
      int64_t t = integer(step, "c", c);
      for (int64_t k = 0; k < kh * kw; ++k) {
        const int64_t a = at(oy, ox, k / kw, k % kw, c);
        t += a * w[static_cast<size_t>(c * kh * kw + k)];
        if (step.tensors.contains("zw")) t -= integer(step, "zw", c) * (a - outside);
      }
      const auto wide = static_cast<float>(static_cast<int32_t>(t));
      if (out_buffer(step).dtype == DType::kU8) {
        to.q.push_back(code(step, wide * real(step, "m", c)));
      } else {
        to.f.push_back(std::fmaf(wide, plan_.tensor(step, "s").as<float>()[static_cast<size_t>(c)],
                                 plan_.tensor(step, "b").as<float>()[static_cast<size_t>(c)]));
      }
    }
  }
  if (conv) products(step, copied, kh * kw * image[2], to);
  else if (patches) to.q = std::move(copied);
}

inline void Naive::pad(const Step& step, Value& to) const {
  const Shape &from = in_shape(step), &shape = out_buffer(step).item_shape;
  const std::vector<int64_t>& before = step.lists.at("before");
  const Value& x = in(step, 0);
  for (int64_t i = 0; i < element_count(shape); ++i) {
    int64_t rest = i, offset = 0, stride = 1;
    bool inside = true;
    for (size_t axis = shape.size(); axis-- > 0;) {
      const int64_t place = rest % shape[axis] - before[axis];
      rest /= shape[axis];
      inside = inside && place >= 0 && place < from[axis];
      offset += place * stride;
      stride *= from[axis];
    }
    if (x.f.empty()) {
      to.q.push_back(inside ? x.q[static_cast<size_t>(offset)]
                            : static_cast<uint8_t>(attribute(step, "fill")));
    } else {
      to.f.push_back(inside ? x.f[static_cast<size_t>(offset)] : 0.0f);
    }
  }
}

inline void Naive::norm(const Step& step, Value& to) const {
  const std::vector<float>& x = in(step, 0).f;
  const int64_t channels = plan_.tensor(step, "g").size();
  const auto width = static_cast<float>(channels);
  const bool layer = step.op == "layer_norm", beta = step.tensors.contains("beta");
  for (size_t first = 0; first < x.size(); first += static_cast<size_t>(channels)) {
    std::vector<float> row(x.begin() + static_cast<int64_t>(first),
                           x.begin() + static_cast<int64_t>(first) + channels);
    const float mean = layer ? lanes(row) / width : 0.0f;
    std::vector<float> squares;
    for (float& v : row) {
      v = layer ? v - mean : v;
      squares.push_back(v * v);
    }
    const float rstd = 1.0f / std::sqrt(lanes(squares) / width + real(step, "eps", 0));
    for (int64_t c = 0; c < channels; ++c) {
      const Tensor& gains = plan_.tensor(step, "g");
      const float scaled =
          (row[static_cast<size_t>(c)] * rstd) * gains.as<float>()[static_cast<size_t>(c)];
      if (!beta) put(step, to, scaled);
      else put(step, to, scaled + plan_.tensor(step, "beta").as<float>()[static_cast<size_t>(c)]);
    }
  }
}

// Movement by index arithmetic on every element.
inline void Naive::move(const Step& step, Value& to) const {
  const Value& x = in(step, 0);
  const auto take = [&](size_t i) {
    if (x.f.empty()) to.q.push_back(x.q[i]);
    else to.f.push_back(x.f[i]);
  };
  if (step.op == "prepend") {
    const Tensor& head = plan_.tensor(step, "const");
    if (head.dtype() == DType::kF32) to.f.assign(head.as<float>().begin(), head.as<float>().end());
    else to.q.assign(head.as<uint8_t>().begin(), head.as<uint8_t>().end());
    for (size_t i = 0; i < x.f.size() + x.q.size(); ++i) take(i);
  } else if (step.op == "slice") {
    const std::vector<int64_t>& range = step.lists.at("range");
    const Shape& shape = in_shape(step);
    int64_t inner = 1;
    for (size_t d = static_cast<size_t>(range[0]) + 1; d < shape.size(); ++d) inner *= shape[d];
    const int64_t size = shape[static_cast<size_t>(range[0])];
    for (size_t i = 0; i < x.f.size() + x.q.size(); ++i) {
      const int64_t index = static_cast<int64_t>(i) / inner % size;
      if (index >= range[1] && index < range[2] && (index - range[1]) % range[3] == 0) take(i);
    }
  } else {
    const std::vector<int64_t>&dims = step.lists.at("dims"), &perm = step.lists.at("perm");
    std::vector<int64_t> index(dims.size(), 0);
    for (size_t n = 0; n < x.f.size() + x.q.size(); ++n) {
      int64_t flat = static_cast<int64_t>(n);
      for (size_t d = perm.size(); d-- > 0;) {
        const auto axis = static_cast<size_t>(perm[d]);
        index[axis] = flat % dims[axis];
        flat /= dims[axis];
      }
      int64_t from = 0;
      for (size_t d = 0; d < dims.size(); ++d) from = from * dims[d] + index[d];
      take(static_cast<size_t>(from));
    }
  }
}

inline void Naive::evaluate(const Step& step) {
  Value to;
  if (rows(step, to) || NaiveFloats(plan_, step, values_).run(to)) {
  } else if (step.op == "linear") {
    linear(step, to);
  } else if (step.op == "patches" || step.op == "conv" || step.op == "depthwise") {
    window(step, to);
  } else if (step.op == "pad") {
    pad(step, to);
  } else if (step.op == "attention") {
    attention(step, to);
  } else if (step.op == "layer_norm" || step.op == "rms_norm") {
    norm(step, to);
  } else if (step.op == "transpose" || step.op == "slice" || step.op == "prepend") {
    move(step, to);
  } else if (step.op == "mean_rows") {
    const std::vector<float>& x = in(step, 0).f;
    const auto channels = static_cast<size_t>(in_shape(step).back());
    for (size_t c = 0; c < channels; ++c) {
      std::vector<float> column;
      for (size_t i = c; i < x.size(); i += channels) column.push_back(x[i]);
      to.f.push_back(lanes(column) / static_cast<float>(column.size()));
    }
  } else {
    elementwise(step, to);
  }
  values_[static_cast<size_t>(step.out[0])] = std::move(to);
}

}  // namespace repquant::testing

#include "repquant/runtime/testing_naive_rows.h"
