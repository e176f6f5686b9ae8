#pragma once
// A graph in float, or fake-quantized, as a Model.
#include "repquant/core/thread_pool.h"
#include "repquant/evaluate/evaluate.h"
#include "repquant/interpret/interpreter.h"

namespace repquant {

// Every input, first output; items are run one by one, spread over the workers of `pool`, so the
// answers depend neither on the batch nor on the workers. Everything passed by reference outlives
// the result.
Model float_model(const Graph& graph, const WeightMap& weights, ThreadPool& pool,
                  SiteHook hook = {});

// Throws when `inputs` are nothing that the graph's inputs take.
void check_items(const Graph& graph, Model::Inputs inputs);

// How data sets find what the graph reads: the names of its inputs, its outputs as targets.
void name_arrays(const Graph& graph, DatasetOptions& options);

}  // namespace repquant
