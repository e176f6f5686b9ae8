#pragma once
// Walks one block in order over all calibration chunks, so that each site is observed behind an
// already quantized prefix. Activations stay resident while they fit `resident_bytes`; beyond that
// a site is recomputed from the block input each time it is visited, so memory stays constant
// whatever the number of samples.
#include <functional>
#include <map>
#include <vector>

#include "repquant/interpret/workspace.h"
#include "repquant/observe/blocks.h"

namespace repquant::observe {

using Chunks = std::vector<at::Tensor>;  // one value, samples split in fixed pieces, in order

// As Site::input: what the node would put out, before it is stepped.
inline constexpr int kNodeOutput = 101;

class BlockWalk {
 public:
  // `inputs`: the block input by chunk; a block that begins at graph input 0 reads the other graph
  // inputs from ws.calibration, whose samples the chunks are, in order. `hook` is what later steps
  // apply at sites (fake quantization by the plan); empty: float. All references must outlive the
  // walk.
  BlockWalk(Workspace& ws, const WeightMap& weights, const Block& block, const Chunks& inputs,
            SiteHook hook);

  // Calls fn(chunk, tensor) with what `site.node` (the next node to be stepped) reads at
  // `site.input`, its probabilities or its output (kNodeOutput); the site's own hook is not
  // applied. Chunks run in parallel; fn must only write to its own chunk's slot.
  void visit(const Site& site, const std::function<void(int64_t chunk, const at::Tensor&)>& fn);
  // Runs node `id`; nodes must be stepped in block order.
  void step(NodeId id);
  // The value by chunk; available after its producer was stepped and while a later node reads it.
  at::Tensor value(ValueId id, int64_t chunk);
  // Adds `delta` to a value that was computed before a rewrite of its producer's bias by the same.
  void shift_value(ValueId id, const at::Tensor& delta);
  Chunks output();  // the block output; all nodes must have been stepped
  int64_t chunks() const { return static_cast<int64_t>(inputs_.size()); }
  bool resident() const { return resident_; }

 private:
  void release(size_t place, ValueMap& values) const;
  void recompute(int64_t chunk, size_t count, ValueMap& values) const;
  int64_t resident_size() const;

  Workspace& ws_;
  const WeightMap& weights_;
  const Block& block_;
  const Chunks& inputs_;
  SiteHook hook_;
  Interpreter interpreter_;
  std::map<ValueId, size_t> last_read_;
  bool resident_ = true;
  size_t stepped_ = 0;
  // Resident mode, by chunk:
  std::vector<ValueMap> values_;
  std::vector<at::Tensor> probabilities_;  // of the next node, once visited
};

// What the block reads in chunk `chunk`.
ValueMap block_values(const Workspace& ws, const Block& block, const Chunks& inputs, int64_t chunk);

// Runs the block over all chunks and returns its output.
Chunks run_block(Workspace& ws, const WeightMap& weights, const Block& block, const Chunks& inputs,
                 const SiteHook& hook);

}  // namespace repquant::observe
