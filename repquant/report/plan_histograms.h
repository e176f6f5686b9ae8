#pragma once
// How often each code of an artifact occurs: weights from the plan alone, softmax codes from what a
// run taps. Both as the parts of a run record that repquant/report/record.h documents.
#include <map>
#include <vector>

#include <nlohmann/json.hpp>

#include "repquant/core/plan.h"

namespace repquant {

// [{"layer": step name, "bits", "low": -2^(bits-1), "codes": [count of low, low + 1, ...]}], one
// entry a linear step in execution order. Throws kCorruptFile for weights that do not unpack.
nlohmann::json weight_code_histograms(const Plan& plan);

// Counts the codes of attention probabilities. They live only inside a step, so they are computed
// again from the codes of queries and keys, by the same laws. observe() has the signature of a step
// tap (Simulator, Session::run_tapped): values [item shape...] or [N, item shape...].
class SoftmaxCodeCounter {
 public:
  explicit SoftmaxCodeCounter(const Plan& plan);  // keeps a reference
  void observe(const Step& step, int out_index, ConstTensorView value);
  // [{"layer", "kind": "log" | "uniform" | "row", "low": 0, "codes": [...]}], in execution order;
  // attention steps that were not observed are left out.
  nlohmann::json histograms() const;

 private:
  void count(const Step& step);
  const Plan& plan_;
  std::map<int, std::vector<uint8_t>> operands_;        // queries and keys, by buffer
  std::map<std::string, std::vector<int64_t>> counts_;  // by step name
};

}  // namespace repquant
