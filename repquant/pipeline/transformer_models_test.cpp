// Real transformers other than ViT, rounded to nearest: simulator and runtime agree bit for bit,
// and the artifact answers as the float model does.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "repquant/core/artifact.h"
#include "repquant/load/load.h"
#include "repquant/methods/method.h"
#include "repquant/pipeline/passes.h"
#include "repquant/pipeline/targets.h"
#include "repquant/runtime/session.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

fs::path assets() {
  const char* given = std::getenv("REPQUANT_ASSETS");
  if (given != nullptr) return given;
  return fs::path(__FILE__).parent_path().parent_path().parent_path() / "../shared/assets";
}

int64_t count(const Plan& plan, const std::string& op) {
  return std::count_if(plan.steps.begin(), plan.steps.end(),
                       [&](const Step& step) { return step.op == op; });
}

Plan rounded(const fs::path& model, const at::Tensor& data, ThreadPool& pool) {
  Workspace ws = make_workspace(load_model(model));
  ws.calibration = {data.size(0),
                    [data](int64_t b, int64_t e) { return data.slice(0, b, e).contiguous(); }};
  ws.pool = &pool;
  make_parameters_explicit(ws);
  ws.reference = ws.weights;
  Recipe recipe;
  recipe.scheme = {8, 8};
  ws.targets = make_targets(ws, recipe);
  ws.pass = "round_to_nearest";
  find_method(ws.pass).run(ws, {});
  return finish(ws, nlohmann::json::object(), nlohmann::json::object());
}

Tensor executed(const Plan& plan, const Tensor& input, ThreadPool& pool, const Shape& shape) {
  Session session(Program::from_plan(plan), {shape[0], &pool});
  Tensor out(DType::kF32, shape);
  const ConstTensorView in = input.view();
  const TensorView to = out.view();
  session.run({&in, 1}, {&to, 1});
  return out;
}

double snr(const Tensor& want, const Tensor& got) {
  double signal = 0, error = 0;
  for (size_t i = 0; i < want.as<float>().size(); ++i) {
    const double w = want.as<float>()[i], d = w - static_cast<double>(got.as<float>()[i]);
    signal += w * w;
    error += d * d;
  }
  return 10 * std::log10(signal / error);
}

TEST(TransformerModels, KeywordTransformerOnItsOwnClips) {
  const fs::path model = assets() / "audio/kwt1/kwt1.onnx";
  if (!fs::exists(model)) GTEST_SKIP() << "assets missing: " << model;
  const SafetensorsFile file = read_safetensors(assets() / "reference/kwt1.safetensors");
  const Tensor &audio = file.tensors.at("audio"), &logits = file.tensors.at("logits");
  ThreadPool pool(2);
  const Plan plan = rounded(model, to_aten(audio), pool);
  EXPECT_EQ(count(plan, "attention"), 12);
  EXPECT_EQ(count(plan, "matmul"), 4);  // two transforms, the filter bank, the cosine transform
  EXPECT_EQ(count(plan, "linear"), 1 + 12 * 6 + 1);
  const Tensor got = executed(plan, audio, pool, logits.shape());
  const Tensor judged = Simulator(plan).run({audio}).at(0);
  EXPECT_EQ(std::memcmp(got.data(), judged.data(), got.bytes()), 0);
  // 8-bit codes lie 40 dB below what they code; a chain of 12 blocks with four sums each keeps 15.
  EXPECT_GT(snr(logits, got), 15.0);
  for (int64_t i = 0; i < 4; ++i) {
    const auto row = [&](const Tensor& t) {
      return t.as<float>().subspan(static_cast<size_t>(12 * i), 12);
    };
    const auto best = [](std::span<const float> x) {
      return std::max_element(x.begin(), x.end()) - x.begin();
    };
    EXPECT_EQ(best(row(got)), best(row(logits))) << i;
  }
}

}  // namespace
}  // namespace repquant
