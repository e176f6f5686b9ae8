// Real convolution networks (assets): shipped recipes, scored on the artifact.
#include <utility>

#include <gtest/gtest.h>

#include "repquant/core/files.h"
#include "repquant/data/image.h"
#include "repquant/data/npy.h"
#include "repquant/data/testing.h"
#include "repquant/graph/testing.h"
#include "repquant/pipeline/quantize.h"

namespace repquant {
namespace {

using testing::TempDir;
namespace fs = std::filesystem;

// Agreement with float, percent, of `recipe` on `model`.
double agreement_of(const TempDir& dir, const fs::path& model, const std::string& recipe,
                    const std::string& calibration, const std::string& scored,
                    const std::string& preprocess, int64_t samples) {
  ThreadPool pool(2);
  NullSink sink;
  QuantizeJob job;
  job.model = model;
  job.out = dir / (recipe + ".rq.safetensors");
  job.recipe = read_recipe(find_preset_recipe(recipe), registry_options);
  job.recipe.samples = samples;
  job.recipe = effective_recipe(job.recipe, registry_options);
  job.data = calibration;
  job.eval_data = scored;
  job.preprocess.preset = preprocess;
  const QuantizeOutcome outcome = quantize_model(job, {sink, pool});
  return outcome.metrics["difference"]["agreement"].get<double>();
}

// A row of the batch's PNG is an image.
std::string cifar10(const TempDir& dir, const fs::path& assets) {
  const fs::path file = assets / "vision/cifar10/batch_1.png";
  const Image rows = decode_image(read_file(file), file.string());
  Tensor images(DType::kU8, {rows.height, 32, 32, 3});
  std::copy(rows.pixels.begin(), rows.pixels.end(), images.as<uint8_t>().begin());
  write_npy(dir / "cifar10.npy", std::as_const(images).view());
  return (dir / "cifar10.npy").string();
}

TEST(ConvolutionModels, ResNet20KeepsItsAnswers) {
  const fs::path assets = graph_testing::assets(),
                 model = assets / "vision/resnet_cifar10/resnet20.onnx";
  if (!fs::exists(model)) GTEST_SKIP() << "assets are missing";
  const TempDir dir;
  const std::string images = cifar10(dir, assets);
  const auto agreement = [&](const char* recipe) {
    return agreement_of(dir, model, recipe, images + "[0:200]", images + "[200:400]", "cifar10",
                        32);
  };
  // Measured over 1,000 images: 99.8 and more, 99.4 at W4A4; here one image is 0.5.
  EXPECT_GE(agreement("cnn_w8a8"), 99);
  EXPECT_GE(agreement("cnn_w4a8"), 98.5);
  EXPECT_GE(agreement("cnn_w4a4"), 97);
}

TEST(ConvolutionModels, MobileNetKeepsItsAnswers) {
  const fs::path assets = graph_testing::assets(),
                 model = assets / "vision/mobilenet_v1_025/mobilenet.onnx";
  if (!fs::exists(model)) GTEST_SKIP() << "assets are missing";
  const TempDir dir;
  const std::string images = (assets / "vision/imagenet/train").string();
  const double got =
      agreement_of(dir, model, "cnn_w8a8", images + "[0:60]", images + "[60:160]", "mobilenet", 32);
  // 91 measured; plain min-max rounding has 71 on these images.
  EXPECT_GE(got, 86);
}

}  // namespace
}  // namespace repquant
