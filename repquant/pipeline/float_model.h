#pragma once
// A graph in float, or fake-quantized, as a Model.
#include "repquant/core/thread_pool.h"
#include "repquant/evaluate/evaluate.h"
#include "repquant/interpret/interpreter.h"

namespace repquant {

// First input, first output; items are run one by one, spread over the workers of `pool`, so the
// answers depend neither on the batch nor on the workers. Everything passed by reference outlives
// the result.
Model float_model(const Graph& graph, const WeightMap& weights, ThreadPool& pool,
                  SiteHook hook = {});

// Throws when `batch` is nothing that the graph's one input takes.
void check_item(const Graph& graph, const Tensor& batch);

}  // namespace repquant
