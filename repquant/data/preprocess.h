#pragma once
// From decoded pixels to the tensor a vision model takes. A Preprocess is a plain value that
// travels inside the artifact as JSON.
//
// Geometry, in this order: colours to `channels`; resize with antialias (image.h); crop of
// crop x crop at offset floor((n - crop) / 2). Then value = (float(x * scale) - mean) / std, each
// operation rounded to float.
//   kAuto         an image whose shorter side lies in [crop, resize_size] is only cropped, every
//                 other is resized as by kShorterSide
//   kShorterSide  the shorter side becomes resize_size, the longer
//                 floor(resize_size * longer / shorter)
//   kExact        both sides become resize_size, whatever the proportions
//   kNone         as it is
// crop 0 keeps the size. An image smaller than the crop is an error (kCorruptFile).
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "repquant/core/tensor.h"
#include "repquant/data/image.h"

namespace repquant {

struct Preprocess {
  enum class Resize { kAuto, kShorterSide, kExact, kNone };

  std::string preset = "custom";  // a name of preset_names(), "plain" or "custom"
  Resize resize = Resize::kAuto;
  int resize_size = 256;
  int crop = 224;
  std::string interpolation = "bicubic";  // bicubic | bilinear | nearest
  int channels = 3;                       // 1 | 3
  std::vector<float> mean{0.485f, 0.456f, 0.406f}, std{0.229f, 0.224f, 0.225f};  // [channels]
  double scale = 1.0 / 255.0;
  bool operator==(const Preprocess&) const = default;
};

nlohmann::json to_json(const Preprocess& preprocess);
// Unknown keys, wrong types and values out of range throw kCorruptFile.
Preprocess preprocess_from_json(const nlohmann::json& json);

// deit (= imagenet): shorter side 256 bicubic, crop 224, ImageNet mean and deviation; vit: 248,
// crop 224, mean and deviation 0.5; mobilenet: 256, crop 224, x / 127.5 - 1; cifar10: 32 x 32 as it
// is, ImageNet mean and deviation; fashion_mnist (= demo): 28 x 28 grey as it is, mean 0.2860,
// deviation 0.3530; mnist: 28 x 28 grey, x / 255. An unknown name throws kInvalidArgument naming
// the nearest.
Preprocess preset(std::string_view name);
const std::vector<std::string>& preset_names();
// For an input without metadata: 3x224x224 is "deit", 3x32x32 "cifar10", 1x28x28 "fashion_mnist";
// anything else is "plain": cropped to a square input or left as it is, x / 255.
Preprocess guess_preprocess(int64_t channels, int64_t height, int64_t width);

// Hugging Face preprocessor_config.json (image processors with resize, centre crop, rescale and
// normalise). Throws kNotFound, kCorruptFile, kUnsupported.
Preprocess preprocess_from_hugging_face(const std::filesystem::path& path);
Preprocess preprocess_from_hugging_face(const nlohmann::json& json, const std::string& subject);

// A command line option over a preset. Keys and texts: resize (auto | none | N), crop (N), mean and
// std (one number or one a channel, "0.5,0.5,0.5"), interpolation. Throws kInvalidArgument.
void set_preprocess_option(Preprocess& preprocess, std::string_view key, std::string_view text);
// Throws kInvalidArgument when the fields contradict each other or are out of range.
void check_preprocess(const Preprocess& preprocess);

// Resize and crop only: u8, `channels` channels. `subject` names the image in errors.
Image prepare_pixels(const Image& image, const Preprocess& preprocess, const std::string& subject);
// prepare_pixels, then normalise: f32 [C, H, W].
Tensor apply_preprocess(const Image& image, const Preprocess& preprocess,
                        const std::string& subject);

}  // namespace repquant
