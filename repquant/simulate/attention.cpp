// Attention with integer products, head by head, query by query.
#include <cmath>
#include <limits>

#include "repquant/core/error.h"
#include "repquant/core/format/log.h"
#include "repquant/core/format/reduce.h"
#include "repquant/core/format/uniform.h"
#include "repquant/simulate/steps.h"

namespace repquant::simulate {
namespace {

// One row of probabilities as codes (log: 0 .. K; else the level itself).
std::vector<int32_t> probability_codes(const StepContext& c, std::span<const float> scores) {
  const std::string& kind = c.step.strings.at("codes");
  std::vector<float> e(scores.size());
  const float sum = softmax_exp_row(scores, e);
  std::vector<int32_t> codes(scores.size());
  for (size_t i = 0; i < e.size(); ++i) {
    if (kind == "row") {
      codes[i] = row_code(e[i]);
      continue;
    }
    const float p = sum == 0.0f ? 0.0f : e[i] / sum;
    codes[i] = kind == "log" ? log_code(p, c.reals("thr"))
                             : quantize_uniform(p, c.reals("pinv")[0], 0, 0, c.integer("phi"));
  }
  return codes;
}

// The exact integer weight of each code in the sum over values.
std::vector<int64_t> table_levels(const StepContext& c, const std::vector<int32_t>& codes) {
  std::vector<int64_t> levels(codes.begin(), codes.end());
  const std::string& pv = c.step.strings.at("pv");
  if (pv != "table" && pv != "table2") return levels;
  const Tensor& lut = c.plan.tensor(c.step, "lut");
  for (int64_t& level : levels) {
    const size_t code = static_cast<size_t>(level);
    level = pv == "table" ? int64_t{lut.as<uint8_t>()[code]} : int64_t{lut.as<uint16_t>()[code]};
  }
  return levels;
}

// Column sums of one query: sum_k level(code_k) (v[k] - zv) as float, before the output constant.
class ValueSum {
 public:
  ValueSum(const StepContext& c, const std::vector<int32_t>& codes)
      : codes_(codes),
        parity_(c.step.strings.at("pv") == "parity"),
        row_(c.step.strings.at("pv") == "row") {
    if (parity_) {
      count_ = static_cast<int>(c.reals("thr").size());
      shift_ = parity_shift(count_);
    } else {
      levels_ = table_levels(c, codes);
      for (const int64_t level : levels_) total_ += level;
    }
  }

  // value(k): v - zv of key k in this column.
  template <class Value> float operator()(Value&& value) const {
    if (parity_) {
      ParitySums sums;
      for (size_t k = 0; k < codes_.size(); ++k)
        parity_accumulate(sums, codes_[k], value(k), count_, shift_);
      return parity_combine(sums.even, sums.odd, shift_);
    }
    int64_t sum = 0;
    for (size_t k = 0; k < levels_.size(); ++k) sum += levels_[k] * int64_t{value(k)};
    const float u = static_cast<float>(sum);
    if (!row_) return u;
    return total_ == 0 ? 0.0f : u / static_cast<float>(total_);
  }

 private:
  const std::vector<int32_t>& codes_;
  bool parity_, row_;
  int count_ = 0, shift_ = 0;
  std::vector<int64_t> levels_;
  int64_t total_ = 0;
};

struct Head {
  size_t tokens, width, first, size;  // width: all heads; first, size: columns of this head
  float m, mo;
  size_t window, index;
};

// Adds the bias; keys that the mask leaves out get -infinity, whose exponential is 0.
void add_terms(const StepContext& c, const Head& head, size_t query, std::vector<float>& scores) {
  if (const Tensor* bias = c.plan.find_tensor(c.step, "bias")) {
    const auto windows = static_cast<size_t>(bias->shape()[0]),
               heads = static_cast<size_t>(bias->shape()[1]);
    const size_t plane = (windows == 1 ? 0 : head.window) * heads + (heads == 1 ? 0 : head.index);
    const auto row =
        bias->as<float>().subspan((plane * head.tokens + query) * head.tokens, head.tokens);
    for (size_t key = 0; key < head.tokens; ++key) scores[key] = scores[key] + row[key];
  }
  if (const Tensor* mask = c.plan.find_tensor(c.step, "mask")) {
    const size_t plane = mask->shape()[0] == 1 ? 0 : head.window;
    const auto row =
        mask->as<uint8_t>().subspan((plane * head.tokens + query) * head.tokens, head.tokens);
    for (size_t key = 0; key < head.tokens; ++key) {
      if (row[key] == 0) scores[key] = -std::numeric_limits<float>::infinity();
    }
  }
}

void attend(const StepContext& c, const Head& head, size_t query) {
  const size_t start = head.window * head.tokens * head.width;
  const auto q = c.in[0]->as<uint8_t>().subspan(start), k = c.in[1]->as<uint8_t>().subspan(start),
             v = c.in[2]->as<uint8_t>().subspan(start);
  const int32_t zq = c.integer("zq"), zk = c.integer("zk"), zv = c.integer("zv");
  std::vector<float> scores(head.tokens);
  for (size_t key = 0; key < head.tokens; ++key) {
    const auto a = q.subspan(query * head.width + head.first, head.size);
    const auto b = k.subspan(key * head.width + head.first, head.size);
    int64_t sum = 0;
    for (size_t d = 0; d < head.size; ++d) sum += int64_t{a[d] - zq} * int64_t{b[d] - zk};
    scores[key] = static_cast<float>(sum) * head.m;
  }
  add_terms(c, head, query, scores);
  const std::vector<int32_t> codes = probability_codes(c, scores);
  const ValueSum sum(c, codes);
  const bool codes_out = c.out.dtype() == DType::kU8;
  const CodeOutput output = codes_out ? CodeOutput(c) : CodeOutput();
  for (size_t d = head.first; d < head.first + head.size; ++d) {
    const float u =
        sum([&](size_t key) { return int32_t{v[key * head.width + d]} - zv; }) * head.mo;
    const size_t at = start + query * head.width + d;
    if (codes_out) {
      c.out.as<uint8_t>()[at] = output.round(u);
    } else {
      c.out.as<float>()[at] = u;
    }
  }
}

}  // namespace

void attention(const StepContext& c) {
  const Shape& shape = c.in[0]->shape();
  const size_t heads = static_cast<size_t>(c.integer("heads")),
               width = static_cast<size_t>(shape.back()),
               tokens = static_cast<size_t>(shape[shape.size() - 2]);
  const size_t windows = static_cast<size_t>(c.in[0]->size()) / (tokens * width);
  const auto m = c.reals("m"), mo = c.reals("mo");
  for (size_t i = 0; i < windows * heads; ++i) {
    const size_t h = i % heads, size = width / heads;
    const Head head{
        tokens,    width, h * size, size, m[m.size() == 1 ? 0 : h], mo[mo.size() == 1 ? 0 : h],
        i / heads, h};
    for (size_t query = 0; query < tokens; ++query) attend(c, head, query);
  }
}

}  // namespace repquant::simulate
