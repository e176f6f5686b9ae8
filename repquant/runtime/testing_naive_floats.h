#pragma once
// The naive executor's steps between f32 buffers, by index arithmetic on every element.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "repquant/core/format/functions.h"
#include "repquant/core/plan.h"

namespace repquant::testing {

struct Value {
  std::vector<float> f;    // F32 buffers
  std::vector<uint8_t> q;  // U8 buffers
  std::vector<int64_t> i;  // I64 and I32 buffers
};

// The steps of this header on one item; `values` by buffer.
class NaiveFloats {
 public:
  NaiveFloats(const Plan& plan, const Step& step, const std::vector<Value>& values)
      : plan_(plan), step_(step), values_(values) {}

  bool run(Value& to) const {
    if (step_.op == "activation") activation(to);
    else if (step_.op == "binary") binary(to);
    else if (step_.op == "concat") concat(to);
    else if (step_.op == "reduce") reduce(to);
    else if (step_.op == "max_pool" || step_.op == "average_pool") pool(to);
    else if (step_.op == "gather_rows") gather(to);
    else if (step_.op == "cast")
      for (const int64_t v : in(0).i) to.f.push_back(static_cast<float>(v));
    else return false;
    return true;
  }

  // The function that the step names, if it does.
  float applied(float x) const {
    if (!step_.strings.contains("kind")) return x;
    const std::string& kind = step_.strings.at("kind");
    float a = 0, b = 0;
    if (const Tensor* p = plan_.find_tensor(step_, "p"))
      a = p->as<float>().front(), b = p->as<float>().back();
    // Written out once more where that is short.
    if (kind == "leaky_relu") return x > 0.0f ? x : a * x;
    if (kind == "clip") return x < a ? a : x > b ? b : x;
    if (kind == "hard_sigmoid") return std::min(std::max(x * a + b, 0.0f), 1.0f);
    if (kind == "sqrt") return std::sqrt(x);
    return function_law(*function_kind(kind)).value(x, a, b);
  }

 private:
  const Value& in(size_t k) const { return values_[static_cast<size_t>(step_.in[k])]; }
  const Shape& shape_of(int buffer) const {
    return plan_.buffers[static_cast<size_t>(buffer)].item_shape;
  }
  const Shape& out_shape() const { return shape_of(step_.out[0]); }

  static std::vector<int64_t> place(int64_t i, const Shape& shape) {
    std::vector<int64_t> result(shape.size());
    for (size_t d = shape.size(); d-- > 0;) result[d] = i % shape[d], i /= shape[d];
    return result;
  }
  static size_t flat(const std::vector<int64_t>& place, const Shape& shape) {
    int64_t i = 0;
    for (size_t d = 0; d < shape.size(); ++d) i = i * shape[d] + place[d];
    return static_cast<size_t>(i);
  }

  void activation(Value& to) const {
    for (const float x : in(0).f) to.f.push_back(applied(x));
  }

  void binary(Value& to) const {
    const std::string& kind = step_.strings.at("kind");
    const bool constant = step_.in.size() == 1;
    const Tensor* tensor = plan_.find_tensor(step_, "const");
    const Shape& other = constant ? tensor->shape() : shape_of(step_.in[1]);
    const auto operand = [&](const Shape& shape, std::vector<int64_t> at) {
      at.erase(at.begin(), at.end() - static_cast<ptrdiff_t>(shape.size()));
      for (size_t d = 0; d < shape.size(); ++d) at[d] = shape[d] == 1 ? 0 : at[d];
      return flat(at, shape);
    };
    for (int64_t i = 0; i < element_count(out_shape()); ++i) {
      const std::vector<int64_t> at = place(i, out_shape());
      const float a = in(0).f[operand(shape_of(step_.in[0]), at)];
      const size_t second = operand(other, at);
      const float b = constant ? tensor->as<float>()[second] : in(1).f[second];
      to.f.push_back(kind == "add"    ? a + b
                     : kind == "sub"  ? a - b
                     : kind == "rsub" ? b - a
                     : kind == "mul"  ? a * b
                     : kind == "div"  ? a / b
                     : kind == "rdiv" ? b / a
                     : kind == "max"  ? std::max(b, a)
                                      : std::min(b, a));
    }
  }

  void concat(Value& to) const {
    const auto axis = static_cast<size_t>(step_.ints.at("axis"));
    for (int64_t i = 0; i < element_count(out_shape()); ++i) {
      std::vector<int64_t> at = place(i, out_shape());
      size_t part = 0;
      while (at[axis] >= shape_of(step_.in[part])[axis])
        at[axis] -= shape_of(step_.in[part++])[axis];
      const size_t from = flat(at, shape_of(step_.in[part]));
      if (in(part).f.empty()) to.q.push_back(in(part).q[from]);
      else to.f.push_back(in(part).f[from]);
    }
  }

  void reduce(Value& to) const {
    const std::string& kind = step_.strings.at("kind");
    const std::vector<int64_t>& axes = step_.lists.at("axes");
    const Shape& from = shape_of(step_.in[0]);
    Shape kept = from;
    for (int64_t d = axes[0]; d <= axes[1]; ++d) kept[static_cast<size_t>(d)] = 1;
    std::vector<std::vector<float>> lines(static_cast<size_t>(element_count(kept)));
    for (int64_t i = 0; i < element_count(from); ++i) {
      std::vector<int64_t> at = place(i, from);
      for (int64_t d = axes[0]; d <= axes[1]; ++d) at[static_cast<size_t>(d)] = 0;
      lines[flat(at, kept)].push_back(in(0).f[static_cast<size_t>(i)]);
    }
    for (const std::vector<float>& line : lines) {
      if (kind == "max") to.f.push_back(*std::max_element(line.begin(), line.end()));
      if (kind == "min") to.f.push_back(*std::min_element(line.begin(), line.end()));
      if (kind == "max" || kind == "min") continue;
      float lane[16] = {};
      for (size_t i = 0; i < line.size(); ++i)
        lane[i % 16] += kind == "l2" || kind == "sum_square" ? line[i] * line[i] : line[i];
      for (size_t width : {8, 4, 2, 1})
        for (size_t l = 0; l < width; ++l) lane[l] = lane[l] + lane[l + width];
      to.f.push_back(kind == "mean" ? lane[0] / static_cast<float>(line.size())
                     : kind == "l2" ? std::sqrt(lane[0])
                                    : lane[0]);
    }
  }

  void pool(Value& to) const {
    const auto number = [&](const char* key, size_t k) { return step_.lists.at(key).at(k); };
    const Shape &image = shape_of(step_.in[0]), &out = out_shape();
    for (int64_t i = 0; i < element_count(out); ++i) {
      const std::vector<int64_t> at = place(i, out);
      float sum = 0, most = -INFINITY;
      int code = 0, count = 0;
      for (int64_t y = at[0] * number("strides", 0) - number("pads", 0), ky = 0;
           ky < number("kernel", 0); ++ky, ++y) {
        for (int64_t x = at[1] * number("strides", 1) - number("pads", 1), kx = 0;
             kx < number("kernel", 1); ++kx, ++x) {
          if (y < 0 || x < 0 || y >= image[0] || x >= image[1]) continue;
          const size_t from = flat({y, x, at[2]}, image);
          ++count;
          if (in(0).f.empty()) {
            code = std::max<int>(code, in(0).q[from]);
          } else {
            sum += in(0).f[from];
            most = std::max(most, in(0).f[from]);
          }
        }
      }
      if (in(0).f.empty()) to.q.push_back(static_cast<uint8_t>(code));
      else if (step_.op == "max_pool") to.f.push_back(most);
      else if (step_.ints.at("include_pad") == 0) to.f.push_back(sum / static_cast<float>(count));
      else to.f.push_back(sum / static_cast<float>(number("kernel", 0) * number("kernel", 1)));
    }
  }

  void gather(Value& to) const {
    const Tensor& table = plan_.tensor(step_, "table");
    const int64_t rows = table.shape()[0], width = table.shape()[1];
    for (int64_t index : in(0).i) {
      if (index < 0) index += rows;
      index = std::min(std::max<int64_t>(index, 0), rows - 1);
      for (int64_t c = 0; c < width; ++c)
        to.f.push_back(table.as<float>()[static_cast<size_t>(index * width + c)]);
    }
  }

  const Plan& plan_;
  const Step& step_;
  const std::vector<Value>& values_;
};

}  // namespace repquant::testing
