#pragma once
// Everything a method may read or change.
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "repquant/core/progress.h"
#include "repquant/core/thread_pool.h"
#include "repquant/graph/quant_plan.h"
#include "repquant/interpret/interpreter.h"
#include "repquant/report/report.h"

namespace repquant {

// Calibration samples by index, so that nothing but what is asked for is resident. `load` must be
// callable from several threads.
struct Batches {
  int64_t count = 0;
  std::function<at::Tensor(int64_t begin, int64_t end)> load;  // graph input 0, [end - begin, ...]
  // Graph inputs 1, 2, ... of the same samples; empty: the graph has one.
  std::function<std::vector<at::Tensor>(int64_t begin, int64_t end)> load_others;
};

// What a recipe asks of one site.
struct SiteTarget {
  Role role = Role::kActivation;
  int bits = 8;
  std::string format = "auto";  // auto, uniform, log2, log_sqrt2, log; weights: auto, symmetric
  bool compat = false;          // published levels, simulation only
  std::string granularity = "tensor";  // tensor; head: one symmetric scale a head (q, k, v)
  bool operator==(const SiteTarget&) const = default;
};

struct Workspace;

// State saved after each finished unit of a pass, so that an interrupted run goes on.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  // True when `unit` of the current pass was finished before; then weights and plan are as they
  // were right after it.
  virtual bool restore(Workspace& ws, int unit) = 0;
  virtual void save(const Workspace& ws, int unit) = 0;
};

struct Workspace {
  Graph graph;
  WeightMap weights;    // live values of the graph's constants
  WeightMap reference;  // the same function before anything was quantized or folded
  QuantPlan plan;
  std::map<Site, SiteTarget> targets;  // sites to quantize; others stay float
  Batches calibration;
  Report report;
  uint64_t seed = 0;
  ThreadPool* pool = nullptr;
  Sink* sink = nullptr;
  const StopFlag* stop = nullptr;
  Checkpoint* checkpoint = nullptr;           // may be null
  std::string pass;                           // "repquant", for reports and set_by
  int64_t resident_bytes = int64_t{1} << 30;  // activations kept before sites are recomputed
  std::vector<std::string> applied;           // rewrites done, so that none is applied twice

  const at::Tensor& constant(ValueId id) const;
  // The constant that `node` reads at `input`, made private to that reader first.
  void set_constant(NodeId node, int input, at::Tensor tensor);
  const at::Tensor& constant(NodeId node, int input) const;
  const SiteTarget* target(const Site& site) const;
  bool has_constant(NodeId node, int input) const;
  void throw_if_stopped() const;  // Interrupted
};

// Every graph input for samples [begin, end).
std::vector<at::Tensor> load_inputs(const Workspace& ws, int64_t begin, int64_t end);
// The same as values, to run nodes on.
ValueMap load_values(const Workspace& ws, int64_t begin, int64_t end);

Workspace make_workspace(Graph graph);
// Every linear, conv and norm gets private parameters, a bias and (norms) a gain: rewrites then
// change numbers, never the structure.
void make_parameters_explicit(Workspace& ws);
void store_weights(Workspace& ws);  // weights -> constants of the graph

// Runs body over [0, count) with one intra-op thread a worker and no autograd; pieces are single
// indices, so results do not depend on the number of workers.
void for_each_index(ThreadPool& pool, int64_t count, const std::function<void(int64_t)>& body);

}  // namespace repquant
