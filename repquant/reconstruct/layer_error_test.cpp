#include "repquant/reconstruct/layer_error.h"

#include <algorithm>
#include <map>

#include <gtest/gtest.h>

#include "repquant/graph/testing_vit.h"
#include "repquant/reconstruct/sequential.h"

namespace repquant::reconstruct {
namespace {

using Rows = std::map<std::string, std::map<std::string, double>>;  // layer, metric

Rows rows_of(const Workspace& ws, const std::string& stage) {
  Rows rows;
  for (const Measurement& row : ws.report.rows()) {
    if (row.stage == stage) rows[row.subject][row.metric] = row.value;
  }
  return rows;
}

Workspace workspace(ThreadPool& pool, int weight_bits, int activation_bits) {
  testing::TinyVit options;
  options.weight_bits = 8;
  options.class_token = false;
  Workspace ws = make_workspace(testing::tiny_vit(options).graph);
  torch::manual_seed(7);
  const at::Tensor images = at::randn({8, 3, 8, 8});
  ws.calibration = {8, [images](int64_t b, int64_t e) { return images.slice(0, b, e); }};
  ws.pool = &pool;
  make_parameters_explicit(ws);
  ws.reference = ws.weights;
  for (const NodeId id : ws.graph.order()) {
    const OpKind op = ws.graph.node(id).op;
    if (!is_layer(op)) continue;
    ws.targets[{id, 0}] = {Role::kActivation, activation_bits};
    if (op != OpKind::kMultiHeadAttention) {
      ws.targets[{id, 1}] = {Role::kWeight, weight_bits};
      continue;
    }
    for (const int input : {1, 2, kProbabilities})
      ws.targets[{id, input}] = {Role::kActivation, activation_bits};
  }
  return ws;
}

Rows plainly_rounded(int weight_bits, int activation_bits) {
  ThreadPool pool(1);
  Workspace ws = workspace(pool, weight_bits, activation_bits);
  measure_plain_rounding(ws, "plain", 8);
  EXPECT_TRUE(ws.plan.all().empty());
  return rows_of(ws, "plain");
}

TEST(LayerError, UntouchedModelHasNone) {
  ThreadPool pool(1);
  Workspace ws = workspace(pool, 4, 4);
  measure_layers(ws, "before", 8);
  const Rows rows = rows_of(ws, "before");
  ASSERT_EQ(rows.size(),
            1u + 2 * 5 + 1);  // embedding; two blocks of qkv, attention, proj, mlp; head
  for (const auto& [layer, metrics] : rows) {
    EXPECT_EQ(metrics.at("output_mse"), 0) << layer;
    EXPECT_EQ(metrics.at("cosine"), 1) << layer;
    EXPECT_FALSE(metrics.contains("sqnr_db")) << layer;
  }
}

// The embedding's weight grows by a tenth: 20 dB there, cosine 1, and its error is seen behind it.
TEST(LayerError, KnownChangeOfTheFirstLayer) {
  ThreadPool pool(1);
  Workspace ws = workspace(pool, 4, 4);
  const NodeId embedding = ws.graph.order()[0];
  ASSERT_EQ(ws.graph.node(embedding).op, OpKind::kConv);
  for (const int input : {1, 2})
    ws.set_constant(embedding, input, ws.constant(embedding, input) * 1.1f);
  measure_layers(ws, "after", 8);
  const Rows rows = rows_of(ws, "after");
  const auto& first = rows.at(ws.graph.node(embedding).name);
  EXPECT_NEAR(first.at("sqnr_db"), 20, 1e-4);
  EXPECT_NEAR(first.at("cosine"), 1, 1e-6);
  for (const auto& [layer, metrics] : rows) EXPECT_GT(metrics.at("output_mse"), 0) << layer;
}

TEST(LayerError, EveryLayerGainsFromBits) {
  const Rows four = plainly_rounded(4, 4), six = plainly_rounded(6, 6),
             eight = plainly_rounded(8, 8);
  for (const auto& [layer, metrics] : four) {
    EXPECT_GT(six.at(layer).at("sqnr_db"), metrics.at("sqnr_db") + 3) << layer;
    EXPECT_GT(eight.at(layer).at("sqnr_db"), six.at(layer).at("sqnr_db") + 3) << layer;
  }
}

// With 8-bit activations (probabilities as row codes) plain rounding is the method round_to_nearest
// with min-max ranges.
TEST(LayerError, PlainRoundingIsRoundToNearest) {
  ThreadPool pool(1);
  Workspace ws = workspace(pool, 3, 8);
  measure_plain_rounding(ws, "plain", 8);
  SequentialOptions options;
  options.activation_range = options.weight_range = "minmax";
  options.fold = options.bias_correction = false;
  calibrate(ws, options);
  measure_layers(ws, "after", 8);
  const Rows plain = rows_of(ws, "plain"), after = rows_of(ws, "after");
  ASSERT_EQ(plain.size(), after.size());
  for (const auto& [layer, metrics] : plain) {
    for (const auto& [metric, value] : metrics)
      EXPECT_NEAR(after.at(layer).at(metric), value, 1e-6 * std::abs(value)) << layer << metric;
  }
}

}  // namespace
}  // namespace repquant::reconstruct
