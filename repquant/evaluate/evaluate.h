#pragma once
// Runs anything callable over a data set.
#include <concepts>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "repquant/core/progress.h"
#include "repquant/core/thread_pool.h"
#include "repquant/data/dataset.h"
#include "repquant/evaluate/metrics.h"

namespace repquant {

// The model's inputs in order, [N, item shape...] each -> f32 [N, ...]. Made of anything callable
// with one batch (models of one input) or with all inputs.
class Model {
 public:
  using Inputs = std::span<const Tensor>;
  Model() = default;
  template <class F>
    requires(std::invocable<const F&, const Tensor&> && !std::same_as<F, Model>)
  Model(F answer)  // NOLINT: a callable is a model
      : answer_([answer = std::move(answer)](Inputs inputs) {
          REPQUANT_CHECK(inputs.size() == 1);
          return answer(inputs[0]);
        }) {}
  template <class F>
    requires(std::invocable<const F&, Inputs> && !std::invocable<const F&, const Tensor&>)
  Model(F answer) : answer_(std::move(answer)) {}  // NOLINT
  Tensor operator()(const Tensor& batch) const { return answer_(Inputs(&batch, 1)); }
  Tensor operator()(Inputs inputs) const { return answer_(inputs); }
  explicit operator bool() const { return static_cast<bool>(answer_); }

 private:
  std::function<Tensor(Inputs)> answer_;
};

struct EvaluateOptions {
  int64_t batch = 16;
  std::vector<int64_t> indices;  // empty: all items, in order
  // The class of label l is output l + label_offset; the first label_offset outputs (a background
  // class) are left out of the scores.
  int64_t label_offset = 0;
  ThreadPool* pool = nullptr;  // decodes images side by side; the scores do not depend on it
  Sink* sink = nullptr;
  const StopFlag* stop = nullptr;  // raised: throws Interrupted between batches
  std::string pass = "evaluate";   // Progress::pass
};

// Throws kCorruptFile when items or outputs do not fit together, or a label exceeds the classes.
Scores evaluate(const Model& model, const Dataset& dataset, const EvaluateOptions& options = {});

}  // namespace repquant
