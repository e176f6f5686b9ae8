#include "repquant/report/plan_histograms.h"

#include <algorithm>

#include "repquant/core/error.h"
#include "repquant/core/format/log.h"
#include "repquant/core/format/reduce.h"

namespace repquant {
namespace {

using nlohmann::json;

// The code of each probability of one row, as the attention step defines it.
class RowCoder {
 public:
  RowCoder(const Plan& plan, const Step& step) : kind_(step.strings.at("codes")) {
    if (kind_ == "log") thresholds_ = plan.tensor(step, "thr").as<float>();
    if (kind_ != "uniform") return;
    inverse_ = plan.tensor(step, "pinv").as<float>()[0];
    highest_ = static_cast<int32_t>(plan.integer(step, "phi"));
  }

  size_t symbols() const {
    if (kind_ == "log") return thresholds_.size() + 1;
    return kind_ == "row" ? 256 : static_cast<size_t>(highest_) + 1;
  }

  void count(std::span<const float> scores, std::span<float> e, std::vector<int64_t>& into) const {
    const float sum = softmax_exp_row(scores, e);
    for (const float value : e) ++into.at(static_cast<size_t>(code(value, sum)));
  }

 private:
  int32_t code(float e, float sum) const {
    if (kind_ == "row") return row_code(e);
    const float p = sum == 0.0f ? 0.0f : e / sum;
    return kind_ == "log" ? log_code(p, thresholds_)
                          : quantize_uniform(p, inverse_, 0, 0, highest_);
  }

  std::string kind_;
  std::span<const float> thresholds_;
  float inverse_ = 1.0f;
  int32_t highest_ = 255;
};

struct Extent {
  size_t tokens, width, heads;
};

void count_item(const RowCoder& coder, const Extent& extent, std::span<const uint8_t> q,
                std::span<const uint8_t> k, int32_t zq, int32_t zk, std::span<const float> m,
                std::vector<int64_t>& into) {
  const size_t size = extent.width / extent.heads;
  std::vector<float> scores(extent.tokens), e(extent.tokens);
  for (size_t head = 0; head < extent.heads; ++head) {
    const float scale = m[m.size() == 1 ? 0 : head];
    for (size_t query = 0; query < extent.tokens; ++query) {
      const auto a = q.subspan(query * extent.width + head * size, size);
      for (size_t key = 0; key < extent.tokens; ++key) {
        const auto b = k.subspan(key * extent.width + head * size, size);
        int64_t sum = 0;
        for (size_t d = 0; d < size; ++d) sum += int64_t{a[d] - zq} * int64_t{b[d] - zk};
        scores[key] = static_cast<float>(sum) * scale;
      }
      coder.count(scores, e, into);
    }
  }
}

}  // namespace

json weight_code_histograms(const Plan& plan) {
  json all = json::array();
  for (const Step& step : plan.steps) {
    const auto role = step.tensors.find("w");
    if (role == step.tensors.end()) continue;
    const PlanTensor& tensor = plan.tensors.at(role->second);
    const int64_t low = -(int64_t{1} << (tensor.bits - 1));
    std::vector<int64_t> counts(size_t{1} << tensor.bits, 0);
    for (const int8_t code : unpack_weights(tensor)) ++counts.at(static_cast<size_t>(code - low));
    all.push_back({{"layer", step.name}, {"bits", tensor.bits}, {"low", low}, {"codes", counts}});
  }
  return all;
}

SoftmaxCodeCounter::SoftmaxCodeCounter(const Plan& plan) : plan_(plan) {
  for (const Step& step : plan.steps) {
    if (step.op != "attention") continue;
    for (const size_t i : {size_t{0}, size_t{1}}) operands_[step.in.at(i)];
  }
}

void SoftmaxCodeCounter::observe(const Step& step, int out_index, ConstTensorView value) {
  const auto operand = operands_.find(step.out.at(static_cast<size_t>(out_index)));
  if (operand != operands_.end()) {
    const auto codes = value.as<uint8_t>();
    operand->second.assign(codes.begin(), codes.end());
  }
  if (step.op == "attention") count(step);
}

void SoftmaxCodeCounter::count(const Step& step) {
  const auto &q = operands_.at(step.in.at(0)), &k = operands_.at(step.in.at(1));
  if (q.empty() || q.size() != k.size()) return;
  const Shape& shape = plan_.buffers.at(static_cast<size_t>(step.in[0])).item_shape;
  const Extent extent{static_cast<size_t>(shape.at(0)), static_cast<size_t>(shape.at(1)),
                      static_cast<size_t>(plan_.integer(step, "heads"))};
  const RowCoder coder(plan_, step);
  std::vector<int64_t>& counts = counts_[step.name];
  counts.resize(coder.symbols(), 0);
  const size_t item = extent.tokens * extent.width;
  for (size_t first = 0; first + item <= q.size(); first += item) {
    count_item(coder, extent, std::span(q).subspan(first, item), std::span(k).subspan(first, item),
               static_cast<int32_t>(plan_.integer(step, "zq")),
               static_cast<int32_t>(plan_.integer(step, "zk")), plan_.tensor(step, "m").as<float>(),
               counts);
  }
}

json SoftmaxCodeCounter::histograms() const {
  json all = json::array();
  for (const Step& step : plan_.steps) {
    const auto found = counts_.find(step.name);
    if (found == counts_.end()) continue;
    all.push_back({{"layer", step.name},
                   {"kind", step.strings.at("codes")},
                   {"low", 0},
                   {"codes", found->second}});
  }
  return all;
}

}  // namespace repquant
