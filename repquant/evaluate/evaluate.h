#pragma once
// Runs anything callable over a data set.
#include <functional>
#include <string>
#include <vector>

#include "repquant/core/progress.h"
#include "repquant/core/thread_pool.h"
#include "repquant/data/dataset.h"
#include "repquant/evaluate/metrics.h"

namespace repquant {

// f32 [N, item shape...] -> f32 [N, classes] (or any shape with N first; it is flattened).
using Model = std::function<Tensor(const Tensor& batch)>;

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
