#include "repquant/data/preprocess.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/fields.h"
#include "repquant/data/image_internal.h"

namespace repquant {
namespace {

using Resize = Preprocess::Resize;

const std::vector<std::string>& resize_names() {  // in the order of the enumerators
  static const std::vector<std::string> names{"auto", "shorter_side", "exact", "none"};
  return names;
}

const std::vector<std::string> kInterpolations{"nearest", "bilinear", "bicubic"};

[[noreturn]] void bad_option(std::string_view key, std::string_view expected,
                             std::string_view text) {
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("data: \"--{}\": expected {}, got \"{}\"", key, expected, text));
}

int parse_side(std::string_view key, std::string_view expected, std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0 ||
      value > kMaxImageSide) {
    bad_option(key, expected, text);
  }
  return value;
}

std::vector<float> parse_numbers(std::string_view key, std::string_view text, int channels) {
  const std::string expected = fmt::format("one number, or {} separated by commas", channels);
  std::vector<float> values;
  std::string_view rest = text;
  while (true) {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    float value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc{} || end != part.data() + part.size()) bad_option(key, expected, text);
    values.push_back(value);
    if (comma == std::string_view::npos) break;
    rest = rest.substr(comma + 1);
  }
  if (values.size() == 1) values.resize(static_cast<size_t>(channels), values[0]);
  if (values.size() != static_cast<size_t>(channels)) bad_option(key, expected, text);
  return values;
}

struct Preset {
  const char* name;
  Preprocess value;
};

const std::vector<Preset>& presets() {
  static const std::vector<float> half3{0.5f, 0.5f, 0.5f}, one3{1.0f, 1.0f, 1.0f};
  static const Preprocess imagenet;
  static const Preprocess vit{"vit", Resize::kAuto, 248, 224, "bicubic", 3, half3, half3};
  static const Preprocess mobilenet{"mobilenet", Resize::kAuto, 256,  224,        "bicubic",
                                    3,           one3,          one3, 1.0 / 127.5};
  static const Preprocess cifar{"cifar10", Resize::kNone, 32, 32};
  static const Preprocess fashion{"fashion_mnist", Resize::kNone, 28, 28, "bicubic", 1,
                                  {0.2860f},       {0.3530f}};
  static const Preprocess mnist{"mnist", Resize::kNone, 28, 28, "bicubic", 1, {0.0f}, {1.0f}};
  static const std::vector<Preset> all{
      {"deit", imagenet}, {"imagenet", imagenet},     {"vit", vit},      {"mobilenet", mobilenet},
      {"cifar10", cifar}, {"fashion_mnist", fashion}, {"demo", fashion}, {"mnist", mnist}};
  return all;
}

int checked_side(const nlohmann::json& json, const std::string& what) {
  if (!json.is_number_integer() || json < 0 || json > kMaxImageSide) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("data: {}: expected an integer from 0 to {}, got {}", what,
                            kMaxImageSide, json.dump()));
  }
  return json.get<int>();
}

std::vector<float> checked_numbers(const nlohmann::json& json, const std::string& what) {
  std::vector<float> values;
  if (json.is_array() && json.size() <= 4) {
    for (const auto& item : json) {
      if (!item.is_number()) break;
      values.push_back(item.get<float>());
    }
  }
  if (values.empty() || values.size() != json.size()) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("data: {}: expected a list of one number a channel, got {}", what,
                            json.dump()));
  }
  return values;
}

std::string checked_text(const nlohmann::json& json, const std::string& what,
                         const std::vector<std::string>& allowed) {
  if (json.is_string() &&
      (allowed.empty() || std::find(allowed.begin(), allowed.end(), json) != allowed.end())) {
    return json.get<std::string>();
  }
  throw Error(
      ErrorCode::kCorruptFile,
      fmt::format("data: {}: expected {}, got {}", what,
                  allowed.empty() ? "a string" : fmt::format("one of {}", fmt::join(allowed, ", ")),
                  json.dump()));
}

void read_key(Preprocess& p, const std::string& key, const nlohmann::json& value) {
  const std::string what = fmt::format("preprocessing: \"{}\"", key);
  if (key == "preset") {
    p.preset = checked_text(value, what, {});
  } else if (key == "resize") {
    const auto& names = resize_names();
    const std::string name = checked_text(value, what, names);
    p.resize = static_cast<Resize>(std::find(names.begin(), names.end(), name) - names.begin());
  } else if (key == "resize_size") {
    p.resize_size = checked_side(value, what);
  } else if (key == "crop") {
    p.crop = checked_side(value, what);
  } else if (key == "interpolation") {
    p.interpolation = checked_text(value, what, kInterpolations);
  } else if (key == "channels") {
    p.channels = checked_side(value, what);
  } else if (key == "mean") {
    p.mean = checked_numbers(value, what);
  } else if (key == "std") {
    p.std = checked_numbers(value, what);
  } else if (key == "scale" && value.is_number()) {
    p.scale = value.get<double>();
  } else {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("data: {}: expected a known key and a fitting value, got {}", what,
                            value.dump()));
  }
}

// The first contradiction, or an empty string.
std::string problem(const Preprocess& p) {
  const size_t channels = static_cast<size_t>(p.channels);
  if (p.channels != 1 && p.channels != 3)
    return fmt::format("channels: expected 1 or 3, got {}", p.channels);
  if (p.mean.size() != channels || p.std.size() != channels) {
    return fmt::format("mean and std: expected {} numbers each, got {} and {}", channels,
                       p.mean.size(), p.std.size());
  }
  for (size_t c = 0; c < channels; ++c) {
    if (!std::isfinite(p.mean[c]))
      return fmt::format("mean: expected finite numbers, got {}", p.mean[c]);
    if (!std::isfinite(p.std[c]) || p.std[c] <= 0) {
      return fmt::format("std: expected numbers above 0, got {}", p.std[c]);
    }
  }
  if (!std::isfinite(p.scale) || p.scale <= 0)
    return fmt::format("scale: expected a number above 0, got {}", p.scale);
  if (p.crop < 0 || p.crop > kMaxImageSide) {
    return fmt::format("crop: expected 0 to {} pixels, got {}", kMaxImageSide, p.crop);
  }
  if (std::find(kInterpolations.begin(), kInterpolations.end(), p.interpolation) ==
      kInterpolations.end()) {
    return unknown_name("interpolation", p.interpolation, kInterpolations);
  }
  if (p.resize == Resize::kNone) return {};
  if (p.resize_size < 1 || p.resize_size > kMaxImageSide || p.resize_size < p.crop) {
    return fmt::format("resize size: expected {} (the crop) to {} pixels, got {}",
                       std::max(p.crop, 1), kMaxImageSide, p.resize_size);
  }
  return {};
}

}  // namespace

nlohmann::json to_json(const Preprocess& p) {
  return {{"preset", p.preset},
          {"resize", resize_names()[static_cast<size_t>(p.resize)]},
          {"resize_size", p.resize_size},
          {"crop", p.crop},
          {"interpolation", p.interpolation},
          {"channels", p.channels},
          {"mean", p.mean},
          {"std", p.std},
          {"scale", p.scale}};
}

Preprocess preprocess_from_json(const nlohmann::json& json) {
  if (!json.is_object()) {
    throw Error(ErrorCode::kCorruptFile, "data: preprocessing: expected a JSON object, got " +
                                             std::string(json.type_name()));
  }
  Preprocess p;
  for (const auto& [key, value] : json.items()) read_key(p, key, value);
  if (const std::string text = problem(p); !text.empty()) {
    throw Error(ErrorCode::kCorruptFile, "data: preprocessing: " + text);
  }
  return p;
}

void check_preprocess(const Preprocess& p) {
  if (const std::string text = problem(p); !text.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "data: preprocessing: " + text);
  }
}

const std::vector<std::string>& preset_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const auto& row : presets()) list.emplace_back(row.name);
    return list;
  }();
  return names;
}

Preprocess preset(std::string_view name) {
  for (const auto& row : presets()) {
    if (name != row.name) continue;
    Preprocess p = row.value;
    p.preset = row.name;
    return p;
  }
  throw Error(ErrorCode::kInvalidArgument, "data: " + unknown_name("preset", name, preset_names()));
}

Preprocess guess_preprocess(int64_t channels, int64_t height, int64_t width) {
  const auto is = [&](int64_t c, int64_t side) {
    return channels == c && height == side && width == side;
  };
  if (is(3, 224)) return preset("deit");
  if (is(3, 32)) return preset("cifar10");
  if (is(1, 28)) return preset("fashion_mnist");
  Preprocess p;
  p.preset = "plain";
  p.channels = channels == 1 ? 1 : 3;
  p.mean.assign(static_cast<size_t>(p.channels), 0.0f);
  p.std.assign(static_cast<size_t>(p.channels), 1.0f);
  const bool square = height == width && height >= 1 && height <= kMaxImageSide;
  p.crop = square ? static_cast<int>(height) : 0;
  p.resize = square ? Resize::kAuto : Resize::kNone;
  p.resize_size = square ? p.crop : 256;
  return p;
}

void set_preprocess_option(Preprocess& p, std::string_view key, std::string_view text) {
  const Preprocess before = p;
  if (key == "resize") {
    if (text == "auto") {
      p.resize = Resize::kAuto;
    } else if (text == "none") {
      p.resize = Resize::kNone;
    } else {
      p.resize_size = parse_side(key, "auto, none or a number of pixels", text);
      p.resize = Resize::kShorterSide;
    }
  } else if (key == "crop") {
    p.crop = parse_side(key, "a number of pixels", text);
  } else if (key == "mean") {
    p.mean = parse_numbers(key, text, p.channels);
  } else if (key == "std") {
    p.std = parse_numbers(key, text, p.channels);
  } else if (key == "interpolation") {
    interpolation_from_name(text);
    p.interpolation = text;
  } else {
    throw Error(ErrorCode::kInvalidArgument,
                "data: " + unknown_name("preprocessing option", key,
                                        {"resize", "crop", "mean", "std", "interpolation"}));
  }
  if (p != before) p.preset = "custom";
}

Image prepare_pixels(const Image& image, const Preprocess& p, const std::string& subject) {
  const Image* current = &image;
  Image colours, sized;
  if (image.channels != p.channels) current = &(colours = to_channels(image, p.channels));
  const int shorter = std::min(image.width, image.height),
            longer = std::max(image.width, image.height);
  const bool keep = p.resize == Resize::kNone ||
                    (p.resize == Resize::kAuto && shorter >= p.crop && shorter <= p.resize_size);
  if (!keep) {
    int width = p.resize_size, height = p.resize_size;
    int64_t other = p.resize_size;
    if (p.resize != Resize::kExact) other = other * longer / shorter;
    image_detail::check_size(other, p.resize_size, subject);
    (image.width >= image.height ? width : height) = static_cast<int>(other);
    current = &(sized = resize(*current, width, height, interpolation_from_name(p.interpolation)));
  }
  if (p.crop == 0) return *current;
  if (current->width < p.crop || current->height < p.crop) {
    throw Error(
        ErrorCode::kCorruptFile,
        fmt::format(
            "data: \"{}\": expected at least {} x {} pixels (width x height) to crop, got {} x {}",
            subject, p.crop, p.crop, current->width, current->height),
        "pass --resize auto, or a smaller --crop");
  }
  return crop(*current, (current->width - p.crop) / 2, (current->height - p.crop) / 2, p.crop,
              p.crop);
}

Tensor apply_preprocess(const Image& image, const Preprocess& p, const std::string& subject) {
  check_preprocess(p);
  const Image pixels = prepare_pixels(image, p, subject);
  Tensor tensor(DType::kF32, {p.channels, pixels.height, pixels.width});
  const std::span<float> out = tensor.as<float>();
  const size_t count = static_cast<size_t>(pixels.width) * static_cast<size_t>(pixels.height);
  const size_t channels = static_cast<size_t>(p.channels);
  for (size_t c = 0; c < channels; ++c) {
    std::array<float, 256> value;
    for (size_t x = 0; x < value.size(); ++x) {
      value[x] = (static_cast<float>(static_cast<double>(x) * p.scale) - p.mean[c]) / p.std[c];
    }
    for (size_t i = 0; i < count; ++i) out[c * count + i] = value[pixels.pixels[i * channels + c]];
  }
  return tensor;
}

}  // namespace repquant
