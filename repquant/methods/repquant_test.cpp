#include <algorithm>

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

// State between units is weights and plan by id: what splits or makes constants its own does so
// before the first unit, so that a resumed run finds every id again.
TEST(Repquant, SplitNormsResume) {
  struct : Checkpoint {
    bool restore(Workspace& ws, int unit) override {
      const auto found = saved.find(unit);
      if (found == saved.end()) return false;
      for (const auto& [id, tensor] : found->second.first) {
        EXPECT_EQ(ws.weights.count(id), 1u) << ws.graph.value(id).name;
        ws.weights[id] = tensor;
      }
      ws.plan = found->second.second;
      return true;
    }
    void save(const Workspace& ws, int unit) override { saved[unit] = {ws.weights, ws.plan}; }
    std::map<int, std::pair<WeightMap, QuantPlan>> saved;
  } checkpoint;
  ThreadPool pool(1);
  const auto run = [&] {
    Workspace ws = tiny_workspace(pool, 4);
    for (const NodeId id : std::vector<NodeId>(ws.graph.order())) {
      if (ws.graph.node(id).op != OpKind::kLayerNorm) continue;
      Value extra = ws.graph.value(ws.graph.node(id).outputs[0]);
      extra.name += ".extra";
      extra.producer = -1;
      const ValueId out = ws.graph.add_value(extra);
      ws.graph.add_node({OpKind::kRelu, extra.name, ws.graph.node(id).outputs, {out}, {}},
                        *(std::ranges::find(ws.graph.order(), id) + 1));
    }
    ws.checkpoint = &checkpoint;
    run_method(ws, "repquant", {{"tier", std::string("none")}, {"ranges", std::string("mse")}});
    return quantized_output(ws);
  };
  const at::Tensor want = run();
  ASSERT_GE(checkpoint.saved.size(), 2u);
  std::erase_if(checkpoint.saved, [](const auto& unit) { return unit.first > 1; });
  EXPECT_TRUE(at::equal(run(), want));
}

// A norm whose output training compares with the float model stays what it was.
TEST(Repquant, ANormThatEndsATrainedBlockIsNotFolded) {
  graph_testing::GraphBuilder g;
  torch::manual_seed(3);
  const auto constant = [&](const std::string& name, Shape shape) {
    const at::Tensor values = at::randn(shape).contiguous();
    const float* data = values.const_data_ptr<float>();
    return g.floats(name, std::move(shape), {data, data + values.numel()});
  };
  const auto linear = [&](const std::string& name, ValueId in) {
    return g.node(OpKind::kLinear, {in, constant(name + ".w", {8, 8}), constant(name + ".b", {8})},
                  {}, name);
  };
  const ValueId x =
      g.input("x", {graph_testing::dim("batch"), graph_testing::dim(5), graph_testing::dim(8)});
  const ValueId y =
      g.node(OpKind::kLayerNorm, {linear("first", x), constant("gain", {8}), constant("beta", {8})},
             {}, "norm");
  const ValueId attention =
      g.node(OpKind::kMultiHeadAttention, {linear("q", y), linear("k", y), linear("v", y)},
             graph_testing::attributes({{"heads", int64_t{2}}}), "attention");
  g.graph.outputs = {linear("last", attention)};
  infer_shapes(g.graph);
  for (const bool trains : {true, false}) {
    ThreadPool pool(1);
    Workspace ws = make_workspace(g.graph);
    torch::manual_seed(4);
    const at::Tensor data = at::randn({20, 5, 8});
    ws.calibration = {20,
                      [data](int64_t b, int64_t e) { return data.slice(0, b, e).contiguous(); }};
    ws.pool = &pool;
    make_parameters_explicit(ws);
    ws.reference = ws.weights;
    fill_targets(ws, 4, 4);
    run_method(ws, "repquant",
               {{"tier", std::string("none")},
                {"ranges", std::string("mse")},
                {"blocks", std::string(trains ? "on" : "off")},
                {"steps", int64_t{20}}});
    for (const NodeId id : ws.graph.order()) {
      if (ws.graph.node(id).op != OpKind::kLayerNorm) continue;
      const at::Tensor ratio = ws.constant(id, 1) / ws.reference.at(ws.graph.node(id).inputs[1]);
      // Training moves gains a little, a fold by the spread of channels.
      EXPECT_EQ((ratio - 1).abs().max().item<double>() < 0.1, trains);
    }
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
