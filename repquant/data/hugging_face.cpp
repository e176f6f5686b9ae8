#include <algorithm>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/files.h"
#include "repquant/data/preprocess.h"

namespace repquant {
namespace {

using nlohmann::json;
using Resize = Preprocess::Resize;

struct Config {
  const json& root;
  const std::string& subject;

  [[noreturn]] void fail(ErrorCode code, const std::string& key,
                         const std::string& expected) const {
    throw Error(code, fmt::format("data: \"{}\": \"{}\": expected {}, got {}", subject, key,
                                  expected, root.contains(key) ? root[key].dump() : "nothing"));
  }
  bool flag(const char* key, bool otherwise) const {
    if (!root.contains(key) || root[key].is_null()) return otherwise;
    if (!root[key].is_boolean()) fail(ErrorCode::kCorruptFile, key, "true or false");
    return root[key].get<bool>();
  }
  double number(const char* key, double otherwise) const {
    if (!root.contains(key) || root[key].is_null()) return otherwise;
    if (!root[key].is_number()) fail(ErrorCode::kCorruptFile, key, "a number");
    return root[key].get<double>();
  }
  int pixels(const std::string& key, const json& value) const {
    if (!value.is_number_integer() || value < 1 || value > kMaxImageSide) {
      fail(ErrorCode::kCorruptFile, key, fmt::format("1 to {} pixels", kMaxImageSide));
    }
    return value.get<int>();
  }
  int square(const std::string& key, const json& value) const {
    if (!value.is_object()) return pixels(key, value);
    if (!value.contains("height") || !value.contains("width") ||
        value["height"] != value["width"]) {
      fail(ErrorCode::kUnsupported, key, "equal height and width");
    }
    return pixels(key, value["height"]);
  }
  std::vector<float> numbers(const char* key, std::vector<float> otherwise) const {
    if (!root.contains(key) || root[key].is_null()) return otherwise;
    std::vector<float> values;
    if (root[key].is_array()) {
      for (const json& item : root[key]) {
        if (item.is_number()) values.push_back(item.get<float>());
      }
    }
    if (values.empty() || values.size() != root[key].size() || values.size() > 3) {
      fail(ErrorCode::kCorruptFile, key, "a list of one number a channel");
    }
    return values;
  }
};

void read_resize(const Config& config, Preprocess& p) {
  p.resize = Resize::kNone;
  if (!config.flag("do_resize", true) || !config.root.contains("size")) return;
  const json& size = config.root["size"];
  const bool shortest = size.is_object() && size.contains("shortest_edge");
  p.resize_size =
      shortest ? config.pixels("size", size["shortest_edge"]) : config.square("size", size);
  // A bare number: a square, but for CLIP's processors, where it is the shorter side.
  std::string type;
  for (const char* key : {"image_processor_type", "feature_extractor_type"}) {
    if (config.root.contains(key) && config.root[key].is_string())
      type = config.root[key].get<std::string>();
  }
  const bool clip = size.is_number() && type.starts_with("CLIP");
  p.resize = shortest || clip ? Resize::kShorterSide : Resize::kExact;
}

void read_crop(const Config& config, Preprocess& p) {
  p.crop = 0;
  if (config.root.contains("crop_pct") && p.resize != Resize::kNone) {
    // Below 384 pixels: enlarged by 1 / crop_pct, then cropped; from there on squeezed.
    const double share = config.number("crop_pct", 1.0);
    if (!(share > 0.0 && share <= 1.0))
      config.fail(ErrorCode::kCorruptFile, "crop_pct", "a number in (0, 1]");
    if (p.resize_size >= 384) {
      p.resize = Resize::kExact;
      return;
    }
    p.crop = p.resize_size;
    p.resize_size = static_cast<int>(std::min(p.resize_size / share, 65535.0));
    p.resize = Resize::kShorterSide;
  } else if (config.root.contains("crop_size") && config.flag("do_center_crop", false)) {
    p.crop = config.square("crop_size", config.root["crop_size"]);
  }
}

void read_values(const Config& config, Preprocess& p) {
  const bool normalize = config.flag("do_normalize", true);
  p.mean = config.numbers("image_mean", {0.5f, 0.5f, 0.5f});
  p.std = config.numbers("image_std", {0.5f, 0.5f, 0.5f});
  p.channels = static_cast<int>(p.mean.size());
  if (!normalize) {
    p.mean.assign(p.mean.size(), 0.0f);
    p.std.assign(p.mean.size(), 1.0f);
  }
  p.scale = config.flag("do_rescale", true) ? config.number("rescale_factor", 1.0 / 255.0) : 1.0;
  const json resample = config.root.value("resample", json(2));
  if (resample == 0)
    p.interpolation = "nearest";
  else if (resample == 2)
    p.interpolation = "bilinear";
  else if (resample == 3)
    p.interpolation = "bicubic";
  else
    config.fail(ErrorCode::kUnsupported, "resample", "0 (nearest), 2 (bilinear) or 3 (bicubic)");
}

}  // namespace

Preprocess preprocess_from_hugging_face(const json& root, const std::string& subject) {
  if (!root.is_object() ||
      !(root.contains("image_mean") || root.contains("size") ||
        root.contains("image_processor_type") || root.contains("feature_extractor_type"))) {
    throw Error(
        ErrorCode::kCorruptFile,
        fmt::format("data: \"{}\": expected an image preprocessor configuration, got other JSON",
                    subject));
  }
  const Config config{root, subject};
  Preprocess p;
  p.preset = "custom";
  read_resize(config, p);
  read_crop(config, p);
  read_values(config, p);
  try {
    check_preprocess(p);
  } catch (const Error& error) {
    throw Error(ErrorCode::kCorruptFile, fmt::format("{} (\"{}\")", error.what(), subject));
  }
  return p;
}

Preprocess preprocess_from_hugging_face(const std::filesystem::path& path) {
  constexpr uint64_t kLimit = 1 << 20;
  const std::vector<std::byte> bytes = read_file(path, kLimit);
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  const json root = json::parse(text, text + bytes.size(), nullptr, false);
  if (root.is_discarded()) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("data: \"{}\": expected JSON, got something else", path.string()));
  }
  return preprocess_from_hugging_face(root, path.string());
}

}  // namespace repquant
