// Models of the assets with forms of their own (several inputs, shifted windows, text lines),
// rounded to nearest: simulator and runtime agree bit for bit, and the artifact answers as the
// float model does.
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "repquant/core/artifact.h"
#include "repquant/graph/input_shapes.h"
#include "repquant/graph/testing.h"
#include "repquant/load/load.h"
#include "repquant/lower/whole_items.h"
#include "repquant/methods/method.h"
#include "repquant/pipeline/float_model.h"
#include "repquant/pipeline/passes.h"
#include "repquant/pipeline/targets.h"
#include "repquant/runtime/session.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

struct Rounded {
  Plan plan;
  Tensor want, got;  // of the float model, of the runtime
  double snr_db = 0;
  int64_t count(const std::string& op) const {
    return std::count_if(plan.steps.begin(), plan.steps.end(),
                         [&](const Step& step) { return step.op == op; });
  }
};

Graph loaded(const fs::path& model, const Tensor& input) {
  Graph graph = load_model(model);
  if (lowering::needs_batch_axis(graph)) graph = lowering::with_batch_axis(graph);
  const Shape item(input.shape().begin() + 1, input.shape().end());
  (void)fix_item_shape(graph, graph.inputs[0], item);
  return graph;
}

// W8A8 with the ranges of `inputs` themselves; one output. `judged`: the simulator is asked, too.
Rounded rounded(const fs::path& model, const std::vector<Tensor>& inputs, bool judged) {
  at::set_num_threads(1);
  ThreadPool pool(2);
  const Graph graph = loaded(model, inputs[0]);
  Rounded result;
  result.want = float_model(graph, load_weights(graph), pool)(Model::Inputs(inputs));
  Workspace ws = make_workspace(graph);
  std::vector<at::Tensor> data;
  for (const Tensor& input : inputs) data.push_back(to_aten(input));
  ws.calibration.count = data[0].size(0);
  ws.calibration.load = [&](int64_t b, int64_t e) { return data[0].slice(0, b, e).contiguous(); };
  if (data.size() > 1) {
    ws.calibration.load_others = [&](int64_t b, int64_t e) {
      std::vector<at::Tensor> others;
      for (size_t i = 1; i < data.size(); ++i)
        others.push_back(data[i].slice(0, b, e).contiguous());
      return others;
    };
  }
  ws.pool = &pool;
  make_parameters_explicit(ws);
  ws.reference = ws.weights;
  Recipe recipe;
  recipe.scheme = {8, 8};
  ws.targets = make_targets(ws, recipe);
  ws.pass = "round_to_nearest";
  find_method(ws.pass).run(ws, {});
  result.plan = finish(ws, nlohmann::json::object(), nlohmann::json::object());
  Session session(Program::from_plan(result.plan), {inputs[0].shape()[0], &pool});
  result.got = Tensor(DType::kF32, result.want.shape());
  std::vector<ConstTensorView> in;
  for (const Tensor& input : inputs) in.push_back(input.view());
  const TensorView out = result.got.view();
  session.run(in, {&out, 1});
  if (judged) {
    const Tensor simulated = Simulator(result.plan).run(inputs).at(0);
    EXPECT_EQ(std::memcmp(result.got.data(), simulated.data(), simulated.bytes()), 0);
  }
  double signal = 0, error = 0;
  for (size_t i = 0; i < result.want.as<float>().size(); ++i) {
    const double w = result.want.as<float>()[i], d = w - result.got.as<float>()[i];
    signal += w * w;
    error += d * d;
  }
  result.snr_db = 10 * std::log10(signal / error);
  return result;
}

SafetensorsFile reference(const std::string& name) {
  return read_safetensors(graph_testing::assets() / "reference" / name);
}

// 8-bit codes lie 40 dB below what they code. A path through DiT rounds 30 times: 25 dB; NGswin's
// picture is its input resized, far above what its blocks add.
TEST(AssetModels, DiffusionTransformerOfThreeInputs) {
  const fs::path model = graph_testing::assets() / "diffusion/dit_mnist/dit.onnx";
  if (!fs::exists(model)) GTEST_SKIP() << "assets missing: " << model;
  const SafetensorsFile file = reference("dit_mnist.safetensors");
  const Rounded found =
      rounded(model, {file.tensors.at("x"), file.tensors.at("t"), file.tensors.at("y")}, true);
  EXPECT_EQ(found.count("attention"), 3);
  const Tensor& noise = file.tensors.at("noise");
  for (size_t i = 0; i < noise.as<float>().size(); ++i)
    ASSERT_NEAR(found.want.as<float>()[i], noise.as<float>()[i], 1e-4);
  EXPECT_GT(found.snr_db, 20.0);
}

TEST(AssetModels, WindowsOfNGswin) {
  const fs::path model = graph_testing::assets() / "super_resolution/ngswin_x2/ngswin_x2.onnx";
  if (!fs::exists(model)) GTEST_SKIP() << "assets missing: " << model;
  const SafetensorsFile file = reference("ngswin_x2.safetensors");
  const Rounded found = rounded(model, {file.tensors.at("input")}, false);
  EXPECT_GE(found.count("attention"), 20);
  const Tensor& output = file.tensors.at("output");
  for (size_t i = 0; i < output.as<float>().size(); ++i)
    ASSERT_NEAR(found.want.as<float>()[i], output.as<float>()[i], 1e-4);
  EXPECT_GT(found.snr_db, 25.0);
}

TEST(AssetModels, TextLineWithHardSwishes) {
  const fs::path model = graph_testing::assets() / "ocr/ch_PP-OCRv4_rec_infer.onnx";
  if (!fs::exists(model)) GTEST_SKIP() << "assets missing: " << model;
  torch::manual_seed(2);  // strokes of about three pixels
  const at::Tensor line = at::upsample_nearest2d(at::randn({1, 1, 16, 32}).sign(), {48, 96});
  const Rounded found = rounded(model, {from_aten(line.expand({1, 3, 48, 96}).contiguous())}, true);
  EXPECT_EQ(found.count("attention"), 2);
  const int64_t images = found.count("conv") + found.count("depthwise");
  EXPECT_GE(images, 14);
  // One product and one sum a hard swish remain at most, as do 28 gates and residuals.
  EXPECT_LE(found.count("binary"), 2 * 28 + 28);
  // Strokes are no text: probabilities jump between classes. Less than half is lost.
  EXPECT_GT(found.snr_db, 3.0);
}

}  // namespace
}  // namespace repquant
