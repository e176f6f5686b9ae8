#include "repquant/reconstruct/sequential.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "repquant/quantize/fake_quantize.h"
#include "repquant/reconstruct/layer_error.h"
#include "repquant/reconstruct/token_importance.h"
#include "repquant/reconstruct/unit.h"
#include "repquant/reparameterize/fold.h"
#include "repquant/reparameterize/scaled_channels.h"

namespace repquant::reconstruct {
namespace {

constexpr int64_t kChunk = 8;  // samples a chunk, whatever the number of threads

observe::Chunks load_inputs(Workspace& ws) {
  const int64_t chunks = (ws.calibration.count + kChunk - 1) / kChunk;
  observe::Chunks inputs(static_cast<size_t>(chunks));
  for_each_index(*ws.pool, chunks, [&](int64_t c) {
    const int64_t begin = c * kChunk, end = std::min(begin + kChunk, ws.calibration.count);
    inputs[static_cast<size_t>(c)] = ws.calibration.load(begin, end);
  });
  return inputs;
}

void report_progress(Workspace& ws, size_t unit, size_t units, const std::string& name) {
  if (ws.sink == nullptr) return;
  ws.sink->progress({ws.pass, fmt::format("block {}/{}", unit + 1, units), name, "",
                     static_cast<double>(unit) / static_cast<double>(units)});
}

void train(Workspace& ws, const SequentialOptions& options, std::span<const observe::Block> blocks,
           const observe::Chunks& inputs, const observe::Chunks& targets, Unit& unit) {
  const observe::Block& block = blocks.front();
  TrainingOptions training = options.training;
  training.importance =
      token_importance(ws, blocks.subspan(1), targets.at(0), options.token_weight, ws.seed);
  const TrainingResult result =
      train_block(ws, block, inputs, targets, unit.latent(), training, ws.seed);
  ws.report.add({"reconstruct", block.name, "held_out_mse_before", result.before});
  ws.report.add({"reconstruct", block.name, "held_out_mse_after", result.after});
}

double sqnr_db(const observe::Chunks& want, const observe::Chunks& got) {
  ErrorSums sums;
  for (size_t i = 0; i < want.size(); ++i) sums += error_sums(want[i], got[i]);
  return sums.sqnr_db();
}

// 8-bit codes before the block's activations, all or none: kept where they cost the block's output
// less than 0.1 dB. What was calibrated without them stays as it is either way.
void try_tables(Workspace& ws, const observe::Block& block, const observe::Chunks& inputs,
                const observe::Chunks& targets, const std::map<NodeId, QParams>& tables,
                observe::Chunks& output) {
  constexpr double neutral_db = 0.1;
  const SiteHook hook = quantize::plan_hook(ws.plan);
  if (output.empty()) output = observe::run_block(ws, ws.weights, block, inputs, hook);
  for (const auto& [id, params] : tables)
    ws.plan.set({id, 0}, {Role::kActivation, params, ws.pass});
  observe::Chunks tabled = observe::run_block(ws, ws.weights, block, inputs, hook);
  const double before = sqnr_db(targets, output), after = sqnr_db(targets, tabled);
  ws.report.add({"gelu_table", block.name, "output_sqnr_db_before", before});
  ws.report.add({"gelu_table", block.name, "output_sqnr_db_after", after});
  if (before - after < neutral_db) {
    output = std::move(tabled);
    return;
  }
  for (const auto& [id, params] : tables) ws.plan.erase({id, 0});
  if (ws.sink == nullptr) return;
  ws.sink->info(fmt::format("{}: activation stays float: a table would cost {:.2f} dB", block.name,
                            before - after));
}

}  // namespace

void calibrate(Workspace& ws, const SequentialOptions& options) {
  if (ws.calibration.count < 1) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("{}: calibration data: expected at least one sample, got none", ws.pass));
  }
  if (options.fold && !options.compat) {
    reparameterize::split_norms(ws);
    reparameterize::own_constants(ws);
  }
  const std::vector<observe::Block> blocks = observe::blocks(ws.graph);
  const SiteHook hook = quantize::plan_hook(ws.plan);
  observe::Chunks inputs = load_inputs(ws), targets;
  const bool needs_targets = options.blocks || options.gelu_table == "auto";
  if (needs_targets) targets = inputs;
  for (size_t i = 0; i < blocks.size(); ++i) {
    ws.throw_if_stopped();
    report_progress(ws, i, blocks.size(), blocks[i].name);
    const observe::Block& block = blocks[i];
    if (needs_targets) targets = observe::run_block(ws, ws.reference, block, targets, {});
    const bool last = i + 1 == blocks.size();
    if (ws.checkpoint != nullptr && ws.checkpoint->restore(ws, static_cast<int>(i))) {
      if (!last) inputs = observe::run_block(ws, ws.weights, block, inputs, hook);
      continue;
    }
    Unit unit(ws, options, block, inputs);
    observe::Chunks next = unit.calibrate(last);
    if (!unit.tables().empty()) try_tables(ws, block, inputs, targets, unit.tables(), next);
    // A head reads few tokens: training it on them overfits. What reads several inputs is rounded.
    const bool alone = block.input != ws.graph.inputs[0] || ws.graph.inputs.size() == 1;
    const bool trains = options.blocks && !last && alone && !unit.latent().empty();
    if (trains) {
      train(ws, options, std::span(blocks).subspan(i), inputs, targets, unit);
      next = observe::run_block(ws, ws.weights, block, inputs, hook);
    }
    inputs = std::move(next);
    if (ws.checkpoint != nullptr) ws.checkpoint->save(ws, static_cast<int>(i));
  }
  if (options.compat) fold_published(ws, options);
}

}  // namespace repquant::reconstruct
