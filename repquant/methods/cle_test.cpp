#include "repquant/methods/testing_cnn.h"
#include "repquant/reparameterize/channel_pairs.h"

namespace repquant {
namespace {

using namespace testing;

std::map<std::string, double> reported(const Workspace& ws, const std::string& metric) {
  std::map<std::string, double> rows;
  for (const Measurement& row : ws.report.rows()) {
    if (row.metric == metric) rows[row.subject] = row.value;
  }
  return rows;
}

TEST(Cle, KeepsTheFunctionAndEvensTheChannels) {
  for (const char* ranges : {"activations", "weights"}) {
    ThreadPool pool(2);
    Workspace ws = tiny_cnn_workspace(pool, 8, 8);
    const at::Tensor want = float_output(ws, ws.weights);
    run_method(ws, "cle", {{"ranges", std::string(ranges)}});
    // A factor rounds weight, bias and bound once each, 2^-24 of them; five layers of sums of at
    // most 108 terms round as before. 1e-5 of the largest output leaves room for all.
    const float bound = 1e-5f * want.abs().max().item<float>();
    EXPECT_LE((float_output(ws, ws.weights) - want).abs().max().item<float>(), bound) << ranges;
    EXPECT_LE((float_output(ws, ws.reference) - want).abs().max().item<float>(), bound) << ranges;
    const auto before = reported(ws, "channel_precision_before"),
               after = reported(ws, "channel_precision_after");
    ASSERT_EQ(before.size(), 4u);  // first, depth, point, last
    double sum_before = 0, sum_after = 0;
    for (const auto& [name, value] : before) {
      sum_before += value;
      sum_after += after.at(name);
      if (ranges[0] == 'a') {
        EXPECT_GE(after.at(name), value) << name;
      }
    }
    if (ranges[0] == 'a') {
      EXPECT_GT(sum_after, 1.2 * sum_before);
    }
  }
}

// On images that no calibration saw: the bounds of the clips took the factors, too.
TEST(Cle, KeepsTheFunctionBeyondTheSamples) {
  ThreadPool pool(1);
  Workspace ws = tiny_cnn_workspace(pool, 8, 8);
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> images{8 * at::randn({16, 3, 12, 12})};
  const at::Tensor want = Interpreter(ws.graph, ws.weights).run(images)[0];
  run_method(ws, "cle");
  const at::Tensor got = Interpreter(ws.graph, ws.weights).run(images)[0];
  EXPECT_LE((got - want).abs().max().item<float>(), 1e-5f * want.abs().max().item<float>());
}

// What the paper makes equal, where nothing bounds the factors: row and column of each channel.
TEST(Cle, PublishedRangesMeetInTheMiddle) {
  ThreadPool pool(1);
  Workspace ws = tiny_cnn_workspace(pool, 8, 8);
  run_method(ws, "cle", {{"ranges", std::string("weights")}, {"iterations", int64_t{200}}});
  for (const reparameterize::ChannelPair& pair : reparameterize::channel_pairs(ws, nullptr)) {
    if (pair.clip >= 0) continue;
    const at::Tensor w1 = ws.constant(pair.first, 1), w2 = ws.constant(pair.second, 1);
    const at::Tensor r1 = w1.abs().reshape({w1.size(0), -1}).amax(1);
    const at::Tensor r2 = w2.abs().transpose(0, 1).reshape({w2.size(1), -1}).amax(1);
    const at::Tensor ratio = r2 / r1;  // one number for all: the range of the tensor is free
    // The iteration ends at changes of 0.1 %.
    EXPECT_LT((ratio.max() / ratio.min()).item<float>(), 1.01f) << ws.graph.node(pair.first).name;
  }
}

TEST(Cle, RoundingAfterwardsLosesLess) {
  for (const int bits : {4, 6}) {
    ThreadPool pool(1);
    Workspace plain = tiny_cnn_workspace(pool, 8, bits), even = tiny_cnn_workspace(pool, 8, bits);
    const at::Tensor want = float_output(plain, plain.reference);
    run_method(plain, "round_to_nearest");
    run_method(even, "cle");
    run_method(even, "round_to_nearest");
    EXPECT_LT(output_error(even, want), 0.8 * output_error(plain, want)) << bits;
  }
}

TEST(Cle, AbsorbedBiasesKeepTheFunctionOfTheSamples) {
  ThreadPool pool(1);
  Workspace ws = tiny_cnn_workspace(pool, 8, 8);
  // A 1x1 convolution reads the relu without pads, else nothing is absorbed; one channel is high.
  NodeId point = -1, last = -1;
  for (const NodeId id : ws.graph.order()) {
    if (ws.graph.node(id).name == "point") point = id;
    if (ws.graph.node(id).name == "last") last = id;
  }
  ws.graph.node(last).attrs.set("pads", std::vector<int64_t>{0, 0, 0, 0});
  at::Tensor bias = ws.constant(point, 2).clone();
  bias[3] += 100;
  ws.set_constant(point, 2, bias);
  ws.reference = ws.weights;
  const at::Tensor want = float_output(ws, ws.weights);
  run_method(ws, "cle", {{"absorb", true}});
  EXPECT_GE(reported(ws, "absorbed_channels").at("point"), 1);
  EXPECT_LT(ws.constant(point, 2)[3].item<float>(), 60.0f);
  // As above, sums of terms about 100 times as large as what is left of them.
  EXPECT_LE((float_output(ws, ws.weights) - want).abs().max().item<float>(),
            1e-4f * want.abs().max().item<float>());
}

TEST(Cle, IsRefusedBehindRounding) {
  ThreadPool pool(1);
  Workspace ws = tiny_cnn_workspace(pool, 8, 8);
  run_method(ws, "round_to_nearest");
  EXPECT_THROW(run_method(ws, "cle"), Error);
}

TEST(Cle, ATransformerHasNoPairs) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 8);
  const at::Tensor want = float_output(ws, ws.weights);
  run_method(ws, "cle");
  EXPECT_TRUE(at::equal(float_output(ws, ws.weights), want));
}

}  // namespace
}  // namespace repquant
