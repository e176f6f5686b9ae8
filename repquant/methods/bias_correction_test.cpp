#include "repquant/methods/testing_cnn.h"

namespace repquant {
namespace {

using namespace testing;

TEST(BiasCorrectionMethod, LowersTheMeanErrorOfTheLogits) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 3, 32);
  const at::Tensor want = float_output(ws, ws.reference);
  run_method(ws, "round_to_nearest", {{"activations", false}});
  const double before = (quantized_output(ws) - want).mean(0).square().sum().item<double>();
  run_method(ws, "bias_correction");
  const double after = (quantized_output(ws) - want).mean(0).square().sum().item<double>();
  EXPECT_LT(after, before);
}

// The last layer's bias makes the mean of its output that of the float model: f32 rounding is left.
TEST(BiasCorrectionMethod, OutputsHaveTheMeanOfTheFloatModel) {
  ThreadPool pool(1);
  Workspace ws = tiny_cnn_workspace(pool, 3, 4);
  const at::Tensor want = float_output(ws, ws.reference).mean(0);
  run_method(ws, "round_to_nearest");
  const float before = (quantized_output(ws).mean(0) - want).abs().max().item<float>();
  run_method(ws, "bias_correction", {{"measure", std::string("outputs")}});
  const float after = (quantized_output(ws).mean(0) - want).abs().max().item<float>();
  EXPECT_LT(after, 1e-5f * want.abs().max().item<float>());
  EXPECT_GT(before, 100 * after);
}

// Grouped and padded convolutions: rounding weights alone shifts no mean any more.
TEST(BiasCorrectionMethod, ConvolutionsToo) {
  ThreadPool pool(1);
  Workspace ws = tiny_cnn_workspace(pool, 3, 8);
  for (auto it = ws.targets.begin(); it != ws.targets.end();)
    it = ws.graph.node(it->first.node).name == "depth" ? std::next(it) : ws.targets.erase(it);
  NodeId depth = -1;
  for (const NodeId id : ws.graph.order())
    if (ws.graph.node(id).name == "depth") depth = id;
  ws.graph.outputs = {ws.graph.node(depth).outputs[0]};
  const at::Tensor want = float_output(ws, ws.reference).mean(std::vector<int64_t>{0, 2, 3});
  run_method(ws, "round_to_nearest", {{"activations", false}});
  run_method(ws, "bias_correction");
  const at::Tensor got = quantized_output(ws).mean(std::vector<int64_t>{0, 2, 3});
  EXPECT_LT((got - want).abs().max().item<float>(), 1e-5f * want.abs().max().item<float>());
}

TEST(BiasCorrectionMethod, IsRefusedWhereItWasAppliedAlready) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  run_method(ws, "repq_vit");
  try {
    run_method(ws, "bias_correction");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("already applied"), std::string::npos);
  }
}

}  // namespace
}  // namespace repquant
