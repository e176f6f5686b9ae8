#include "repquant/methods/testing_cnn.h"
#include "repquant/observe/blocks.h"
#include "repquant/reparameterize/rotate.h"

namespace repquant {
namespace {

using namespace testing;

TEST(Rotate, KeepsTheFloatFunctionAndCentresTheStream) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  const at::Tensor want = float_output(ws, ws.weights);
  std::string reason;
  ASSERT_TRUE(reparameterize::rotate_residual(ws, 3, &reason)) << reason;
  EXPECT_EQ(reparameterize::rotate_heads(ws, 3), 2);
  for (const NodeId id : ws.graph.order()) EXPECT_NE(ws.graph.node(id).op, OpKind::kLayerNorm);
  // f32 rounding of rotated weights, 2 blocks, sums of at most 64 terms.
  const float bound = 1e-4f * want.abs().max().item<float>();
  EXPECT_LE((float_output(ws, ws.weights) - want).abs().max().item<float>(), bound);
  EXPECT_LE((float_output(ws, ws.reference) - want).abs().max().item<float>(), bound);
}

TEST(Rotate, AStreamThatIsReadElsewhereIsLeftAlone) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  ValueId stream = kNoValue;
  for (const NodeId id : ws.graph.order()) {
    if (ws.graph.node(id).op == OpKind::kLayerNorm && stream == kNoValue)
      stream = ws.graph.node(id).inputs[0];
  }
  ws.graph.outputs.push_back(stream);
  const at::Tensor before = float_output(ws, ws.weights);
  std::string reason;
  EXPECT_FALSE(reparameterize::rotate_residual(ws, 3, &reason));
  EXPECT_FALSE(reason.empty());
  EXPECT_TRUE(at::equal(before, float_output(ws, ws.weights)));
}

TEST(Repquant, WithEveryStageOffIsRepqVitBitForBit) {
  ThreadPool pool(1);
  Workspace a = tiny_workspace(pool, 4), b = tiny_workspace(pool, 4);
  run_method(a, "repq_vit");
  run_method(b, "repquant", {{"tier", std::string("none")}});
  EXPECT_TRUE(at::equal(quantized_output(a), quantized_output(b)));
}

TEST(Repquant, TiersBeatPlainRounding) {
  ThreadPool pool(2);
  Workspace plain = tiny_workspace(pool, 4, 32);
  const at::Tensor want = float_output(plain, plain.reference);
  run_method(plain, "round_to_nearest");
  const double baseline = output_error(plain, want);
  for (const char* tier : {"paper", "fast", "accurate"}) {
    Workspace ws = tiny_workspace(pool, 4, 32);
    run_method(ws, "repquant",
               {{"tier", std::string(tier)}, {"steps", int64_t{20}}, {"clip_steps", int64_t{20}}});
    EXPECT_LT(output_error(ws, want), baseline) << tier;
  }
}

TEST(Repquant, AccurateDoesNotDependOnThreads) {
  ThreadPool one(1), two(2);
  Workspace a = tiny_workspace(one, 4, 24), b = tiny_workspace(two, 4, 24);
  for (Workspace* ws : {&a, &b}) {
    run_method(*ws, "repquant", {{"tier", std::string("accurate")}, {"steps", int64_t{8}}});
  }
  EXPECT_TRUE(at::equal(quantized_output(a), quantized_output(b)));
}

// A table exactly where the block's output lost less than 0.1 dB; where none stays, the model is
// the one without.
TEST(Repquant, TablesBeforeGeluStayOnlyWhereTheyAreNeutral) {
  ThreadPool pool(1);
  int kept = 0, dropped = 0;
  for (const int bits : {3, 8}) {
    Workspace off = tiny_workspace(pool, bits), ws = tiny_workspace(pool, bits);
    run_method(off, "repquant", {{"gelu_table", std::string("off")}});
    run_method(ws, "repquant", {{"gelu_table", std::string("auto")}});
    std::map<std::string, double> cost;
    for (const Measurement& row : ws.report.rows()) {
      if (row.stage != "gelu_table") continue;
      cost[row.subject] += row.metric == "output_sqnr_db_before" ? row.value : -row.value;
    }
    ASSERT_EQ(cost.size(), 2u);
    const int kept_before = kept;
    for (const observe::Block& block : observe::blocks(ws.graph)) {
      for (const NodeId id : block.nodes) {
        if (ws.graph.node(id).op != OpKind::kGelu) continue;
        const bool there = ws.plan.find(Site{id, 0}) != nullptr;
        EXPECT_EQ(there, cost.at(block.name) < 0.1) << block.name;
        ++(there ? kept : dropped);
      }
    }
    if (kept == kept_before) {
      EXPECT_TRUE(at::equal(quantized_output(ws), quantized_output(off)));
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(dropped, 0);
}

TEST(Repquant, TierFastMakesGeluATableWhereThatIsSafe) {
  ThreadPool pool(1);
  for (const int bits : {4, 6, 8}) {
    Workspace ws = tiny_workspace(pool, bits);
    run_method(ws, "repquant");
    int gelus = 0, tables = 0;
    for (const NodeId id : ws.graph.order()) {
      if (ws.graph.node(id).op != OpKind::kGelu) continue;
      ++gelus;
      tables += ws.plan.find(Site{id, 0}) != nullptr ? 1 : 0;
    }
    EXPECT_GT(gelus, 0);
    EXPECT_EQ(tables, bits == 6 ? 0 : gelus);
  }
}

// Convolutions of any grouping train as linears do.
TEST(Repquant, BlocksOfConvolutionsTrain) {
  ThreadPool pool(2);
  Workspace rounded = tiny_cnn_workspace(pool, 3, 8), trained = tiny_cnn_workspace(pool, 3, 8);
  const at::Tensor want = float_output(rounded, rounded.reference);
  const OptionValues fast{{"tier", std::string("none")}, {"ranges", std::string("mse")},
                          {"gptq", std::string("on")}};
  OptionValues blocks = fast;
  blocks.push_back({"blocks", std::string("on")});
  blocks.push_back({"steps", int64_t{60}});
  run_method(rounded, "repquant", fast);
  run_method(trained, "repquant", blocks);
  std::map<std::string, double> before, after;
  for (const Measurement& row : trained.report.rows()) {
    if (row.metric == "held_out_mse_before") before[row.subject] = row.value;
    if (row.metric == "held_out_mse_after") after[row.subject] = row.value;
  }
  ASSERT_EQ(before.size(), 3u);  // first | depth, point | last; the linear is the head
  int better = 0;
  for (const auto& [block, error] : before) better += after.at(block) < error ? 1 : 0;
  EXPECT_GE(better, 2);
  EXPECT_LT(output_error(trained, want), output_error(rounded, want));
  for (const auto& [site, assignment] : trained.plan.all()) {
    if (assignment.role != Role::kWeight) continue;
    const at::Tensor& w = trained.constant(site.node, 1);  // on its grid, in its shape
    EXPECT_EQ(w.sizes(), trained.reference.at(trained.graph.node(site.node).inputs[1]).sizes());
    EXPECT_TRUE(at::equal(quantize::quantize_rows(w, assignment.params), w));
  }
}

TEST(Repquant, AStopBetweenUnitsIsAnInterruption) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  StopFlag stop;
  stop.raise();
  ws.stop = &stop;
  EXPECT_THROW(run_method(ws, "repquant"), Interrupted);
}

}  // namespace
}  // namespace repquant
