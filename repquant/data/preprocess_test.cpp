#include "repquant/data/preprocess.h"

#include "repquant/core/artifact.h"
#include "repquant/data/testing.h"

namespace repquant {
namespace {

using namespace testing;
using Resize = Preprocess::Resize;
using nlohmann::json;

TEST(Preprocess, JsonRoundTripIsExact) {
  for (const std::string& name : preset_names()) {
    Preprocess p = preset(name);
    EXPECT_EQ(p.preset, name);
    EXPECT_NO_THROW(check_preprocess(p));
    p.mean[0] = 0.1f + 1e-7f;
    EXPECT_EQ(preprocess_from_json(json::parse(to_json(p).dump())), p);
  }
}

TEST(Preprocess, JsonIsChecked) {
  const auto expect_bad = [](const char* key, const json& value, const std::string& part) {
    json j = to_json(preset("deit"));
    j[key] = value;
    expect_error(ErrorCode::kCorruptFile, part, [&] { preprocess_from_json(j); });
  };
  expect_bad("zoom", 3, "\"zoom\"");
  expect_bad("crop", -1, "\"crop\"");
  expect_bad("crop", 100000, "\"crop\"");
  expect_bad("crop", 300, "resize size");
  expect_bad("mean", "0.5", "\"mean\"");
  expect_bad("mean", json::array({0.5}), "mean and std");
  expect_bad("std", json::array({1.0, 0.0, 1.0}), "std");
  expect_bad("scale", 0, "scale");
  expect_bad("channels", 4, "channels");
  expect_bad("interpolation", "lanczos", "one of");
  expect_bad("resize", 7, "one of");
  expect_error(ErrorCode::kCorruptFile, "JSON object", [] { preprocess_from_json(json::array()); });
}

TEST(Preprocess, UnknownPresetNamesTheNearest) {
  expect_error(ErrorCode::kInvalidArgument, "mobilenet", [] { preset("mobilnet"); });
}

TEST(Preprocess, Guess) {
  EXPECT_EQ(guess_preprocess(3, 224, 224), preset("deit"));
  EXPECT_EQ(guess_preprocess(1, 28, 28), preset("fashion_mnist"));
  EXPECT_EQ(guess_preprocess(3, 32, 32), preset("cifar10"));
  const Preprocess plain = guess_preprocess(3, 96, 96);
  EXPECT_EQ(plain.preset, "plain");
  EXPECT_EQ(plain.crop, 96);
  EXPECT_EQ(plain.mean[0], 0.0f);
  EXPECT_NO_THROW(check_preprocess(plain));
  EXPECT_EQ(guess_preprocess(3, 48, 320).crop, 0);
  EXPECT_NO_THROW(check_preprocess(guess_preprocess(1, 0, 0)));
}

TEST(Preprocess, AutoOnlyCropsSidesBetweenCropAndResize) {
  const Preprocess p = preset("deit");
  // The crop begins at floor((n - 224) / 2).
  for (const auto& [w, h, left, top] :
       {std::array{227, 227, 1, 1}, {224, 224, 0, 0}, {256, 300, 16, 38}, {229, 226, 2, 1}}) {
    const Image image = synthetic_image(w, h);
    EXPECT_EQ(prepare_pixels(image, p, "x"), crop(image, left, top, 224, 224)) << w << " x " << h;
  }
  // Shorter side 257 or 223: resized to 256, the longer side floor(256 * longer / shorter).
  for (const auto& [w, h, rw, rh] :
       {std::array{257, 300, 256, 298}, {300, 223, 344, 256}, {100, 100, 256, 256}}) {
    const Image image = synthetic_image(w, h);
    const Image resized = resize(image, rw, rh, Interpolation::kBicubic);
    EXPECT_EQ(prepare_pixels(image, p, "x"),
              crop(resized, (rw - 224) / 2, (rh - 224) / 2, 224, 224))
        << w << " x " << h;
  }
}

TEST(Preprocess, ResizeKinds) {
  const Image image = synthetic_image(40, 20);
  Preprocess p = preset("deit");
  p.crop = 0;
  p.resize_size = 10;
  const auto size = [&](Resize kind) {
    p.resize = kind;
    const Image out = prepare_pixels(image, p, "x");
    return std::pair{out.width, out.height};
  };
  EXPECT_EQ(size(Resize::kShorterSide), (std::pair{20, 10}));
  EXPECT_EQ(size(Resize::kExact), (std::pair{10, 10}));
  EXPECT_EQ(size(Resize::kNone), (std::pair{40, 20}));
}

TEST(Preprocess, ImpossibleSizes) {
  Preprocess p = preset("deit");
  p.resize = Resize::kNone;
  expect_error(ErrorCode::kCorruptFile, "got 23 x 17",
               [&] { prepare_pixels(synthetic_image(), p, "small"); });
  // 1 x 60,000 enlarged to 256 x 15,360,000 would take 11.8 GB.
  Image thin{60000, 1, 1, std::vector<uint8_t>(60000)};
  expect_error(ErrorCode::kCorruptFile, "15360000",
               [&] { prepare_pixels(thin, preset("deit"), "thin"); });
  // An artifact may ask for anything.
  p.resize = Resize::kExact;
  p.resize_size = 65000;
  expect_error(ErrorCode::kCorruptFile, "65000 x 65000",
               [&] { prepare_pixels(synthetic_image(), p, "square"); });
}

TEST(Preprocess, ValuesAreRoundedLikeFloatArithmetic) {
  Image image{16, 16, 3, {}};
  for (int i = 0; i < 256; ++i) image.pixels.insert(image.pixels.end(), 3, static_cast<uint8_t>(i));
  Preprocess p = preset("deit");
  p.resize = Resize::kNone;
  p.crop = 16;
  const Tensor tensor = apply_preprocess(image, p, "x");
  EXPECT_EQ(tensor.shape(), (Shape{3, 16, 16}));
  p = preset("mobilenet");
  p.resize = Resize::kNone;
  p.crop = 16;
  const Tensor mobile = apply_preprocess(image, p, "x");
  const float mean[] = {0.485f, 0.456f, 0.406f}, deviation[] = {0.229f, 0.224f, 0.225f};
  for (size_t i = 0; i < 256; ++i) {
    const float x = static_cast<float>(i);
    for (size_t c = 0; c < 3; ++c) {
      EXPECT_EQ(tensor.as<float>()[c * 256 + i], (x / 255.0f - mean[c]) / deviation[c]);
      EXPECT_EQ(mobile.as<float>()[c * 256 + i], x / 127.5f - 1.0f);
    }
  }
}

TEST(Preprocess, GreyPresetTakesColourImages) {
  Preprocess p = preset("fashion_mnist");
  const Tensor tensor = apply_preprocess(synthetic_image(28, 28), p, "x");
  EXPECT_EQ(tensor.shape(), (Shape{1, 28, 28}));
  const Image grey = to_channels(synthetic_image(28, 28), 1);
  EXPECT_EQ(tensor.as<float>()[5],
            (static_cast<float>(grey.pixels[5]) / 255.0f - 0.2860f) / 0.3530f);
}

TEST(Preprocess, Options) {
  Preprocess p = preset("deit");
  set_preprocess_option(p, "resize", "auto");
  EXPECT_EQ(p, preset("deit"));
  set_preprocess_option(p, "resize", "232");
  EXPECT_EQ(p.resize, Resize::kShorterSide);
  EXPECT_EQ(p.resize_size, 232);
  EXPECT_EQ(p.preset, "custom");
  set_preprocess_option(p, "resize", "none");
  EXPECT_EQ(p.resize, Resize::kNone);
  set_preprocess_option(p, "mean", "0.5");
  EXPECT_EQ(p.mean, (std::vector<float>{0.5f, 0.5f, 0.5f}));
  set_preprocess_option(p, "std", "0.1,0.2,0.3");
  EXPECT_EQ(p.std, (std::vector<float>{0.1f, 0.2f, 0.3f}));
  set_preprocess_option(p, "crop", "200");
  set_preprocess_option(p, "interpolation", "bilinear");
  EXPECT_EQ(p.interpolation, "bilinear");
  for (const auto& [key, text] : {std::pair{"resize", "big"},
                                  {"resize", "-3"},
                                  {"crop", "1e3"},
                                  {"mean", "1,2"},
                                  {"mean", ""},
                                  {"std", "1,,2"},
                                  {"crop", "99999999999"},
                                  {"interpolation", "cubic"},
                                  {"rezise", "3"}}) {
    expect_error(ErrorCode::kInvalidArgument, "",
                 [&, k = key, t = text] { set_preprocess_option(p, k, t); });
  }
}

TEST(Preprocess, HuggingFaceConfigurations) {
  const Preprocess vit = preprocess_from_hugging_face(json::parse(R"({
    "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 2,
    "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}})"),
                                                      "c");
  EXPECT_EQ(vit.resize, Resize::kExact);
  EXPECT_EQ(vit.resize_size, 224);
  EXPECT_EQ(vit.crop, 0);
  EXPECT_EQ(vit.interpolation, "bilinear");
  EXPECT_EQ(vit.scale, 1.0 / 255.0);

  const Preprocess clip = preprocess_from_hugging_face(json::parse(R"({
    "crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48, 0.45, 0.40],
    "image_std": [0.26, 0.26, 0.27], "resample": 3, "size": 224})"),
                                                       "c");
  EXPECT_EQ(clip.resize, Resize::kShorterSide);
  EXPECT_EQ(clip.crop, 224);
  EXPECT_EQ(clip.interpolation, "bicubic");

  const Preprocess convnext = preprocess_from_hugging_face(json::parse(R"({
    "crop_pct": 0.875, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    "resample": 3, "size": {"shortest_edge": 224}})"),
                                                           "c");
  EXPECT_EQ(convnext.resize_size, 256);
  EXPECT_EQ(convnext.crop, 224);

  const auto refuse = [](ErrorCode code, const char* text, const std::string& part) {
    expect_error(code, part, [&] { preprocess_from_hugging_face(json::parse(text), "c.json"); });
  };
  refuse(ErrorCode::kUnsupported, R"({"size": {"height": 2, "width": 3}})", "\"size\"");
  refuse(ErrorCode::kUnsupported, R"({"size": 3, "resample": 1})", "\"resample\"");
  refuse(ErrorCode::kCorruptFile, R"({"size": "big"})", "\"size\"");
  refuse(ErrorCode::kCorruptFile, R"({"size": 3, "image_mean": [1, "x"]})", "\"image_mean\"");
  refuse(ErrorCode::kCorruptFile, R"({"size": 224, "image_mean": [1, 1], "image_std": [1, 1]})",
         "channels");
  refuse(ErrorCode::kCorruptFile, R"({"vocab_size": 3})", "c.json");
  const TempDir temp;
  write_text(temp / "p.json", "{not json");
  expect_error(ErrorCode::kCorruptFile, "p.json",
               [&] { preprocess_from_hugging_face(temp / "p.json"); });
}

// Made with Pillow and NumPy from the first two validation images.
TEST(Preprocess, EqualsTheReferenceInputOfDeit) {
  REPQUANT_NEED_ASSETS();
  const SafetensorsFile reference = read_safetensors(assets() / "reference/deit_tiny.safetensors");
  const Tensor& pixels = reference.tensors.at("pixels");
  const Tensor& input = reference.tensors.at("input");
  const char* names[] = {"ILSVRC2012_val_00000347.JPEG", "ILSVRC2012_val_00000361.JPEG"};
  constexpr size_t kItem = 224 * 224 * 3;
  for (size_t i = 0; i < 2; ++i) {
    const Image image = read_image(assets() / "vision/imagenet/val" / names[i]);
    const Image ours = prepare_pixels(image, preset("deit"), names[i]);
    int worst = 0;  // another version of the JPEG library may round differently
    for (size_t k = 0; k < kItem; ++k)
      worst = std::max(worst, std::abs(ours.pixels[k] - pixels.as<uint8_t>()[i * kItem + k]));
    EXPECT_LE(worst, 1);
    const Image stored{
        224,
        224,
        3,
        {pixels.as<uint8_t>().begin() + static_cast<std::ptrdiff_t>(i * kItem),
         pixels.as<uint8_t>().begin() + static_cast<std::ptrdiff_t>((i + 1) * kItem)}};
    const Tensor tensor = apply_preprocess(stored, preset("deit"), names[i]);
    const auto begin = input.as<float>().begin() + static_cast<std::ptrdiff_t>(i * kItem);
    EXPECT_TRUE(std::equal(tensor.as<float>().begin(), tensor.as<float>().end(), begin));
  }
}

}  // namespace
}  // namespace repquant
