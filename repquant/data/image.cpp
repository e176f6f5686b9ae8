#include "repquant/data/image.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/fields.h"
#include "repquant/core/files.h"
#include "repquant/data/image_internal.h"

namespace repquant {
namespace {

bool starts_with(std::span<const std::byte> bytes, std::initializer_list<uint8_t> prefix) {
  return bytes.size() >= prefix.size() &&
         std::memcmp(bytes.data(), prefix.begin(), prefix.size()) == 0;
}

std::string describe(std::span<const std::byte> bytes) {
  if (bytes.empty()) return "an empty file";
  const size_t head = std::min<size_t>(bytes.size(), 64);
  const bool text =
      std::all_of(bytes.begin(), bytes.begin() + static_cast<long>(head), [](std::byte b) {
        const auto c = std::to_integer<uint8_t>(b);
        return c == '\t' || c == '\n' || c == '\r' || (c >= 32 && c != 127);
      });
  return text ? "text" : "something else";
}

}  // namespace

ImageKind sniff_image(std::span<const std::byte> bytes) {
  if (starts_with(bytes, {0xff, 0xd8, 0xff})) return ImageKind::kJpeg;
  if (starts_with(bytes, {0x89, 'P', 'N', 'G', 0x0d, 0x0a, 0x1a, 0x0a})) return ImageKind::kPng;
  return ImageKind::kUnknown;
}

bool has_image_extension(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

Image decode_image(std::span<const std::byte> bytes, const std::string& subject) {
  switch (sniff_image(bytes)) {
    case ImageKind::kJpeg:
      return decode_jpeg(bytes, subject);
    case ImageKind::kPng:
      return decode_png(bytes, subject);
    case ImageKind::kUnknown:
      break;
  }
  throw Error(
      ErrorCode::kCorruptFile,
      fmt::format("data: \"{}\": expected a JPEG or PNG image, got {}", subject, describe(bytes)));
}

Image read_image(const std::filesystem::path& path) {
  return decode_image(read_file(path), path.string());
}

void image_detail::check_size(int64_t width, int64_t height, const std::string& subject) {
  if (width < 1 || height < 1 || width > kMaxImageSide || height > kMaxImageSide ||
      width * height > kMaxImagePixels) {
    throw Error(
        ErrorCode::kCorruptFile,
        fmt::format(
            "data: \"{}\": expected an image of 1 to {} pixels and sides up to {}, got {} x {}",
            subject, kMaxImagePixels, kMaxImageSide, width, height));
  }
}

Image to_channels(const Image& image, int channels) {
  REPQUANT_CHECK(channels == 1 || channels == 3);
  if (image.channels == channels) return image;
  Image out{image.width, image.height, channels, {}};
  const size_t count = static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  out.pixels.resize(count * static_cast<size_t>(channels));
  for (size_t i = 0; i < count; ++i) {
    if (channels == 3) {
      std::fill_n(&out.pixels[3 * i], 3, image.pixels[i]);
    } else {
      // ITU-R 601 luma in 16-bit fixed point, rounded.
      const uint8_t* rgb = &image.pixels[3 * i];
      out.pixels[i] = static_cast<uint8_t>(
          (rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
    }
  }
  return out;
}

Image crop(const Image& image, int left, int top, int width, int height) {
  REPQUANT_CHECK(left >= 0 && top >= 0 && width >= 1 && height >= 1);
  REPQUANT_CHECK(left <= image.width - width && top <= image.height - height);
  Image out{width, height, image.channels, {}};
  const size_t pixel = static_cast<size_t>(image.channels);
  const size_t row = static_cast<size_t>(width) * pixel;
  out.pixels.resize(row * static_cast<size_t>(height));
  for (int y = 0; y < height; ++y) {
    const size_t source = (static_cast<size_t>(top + y) * static_cast<size_t>(image.width) +
                           static_cast<size_t>(left)) *
                          pixel;
    std::memcpy(&out.pixels[static_cast<size_t>(y) * row], &image.pixels[source], row);
  }
  return out;
}

Interpolation interpolation_from_name(std::string_view name) {
  if (name == "nearest") return Interpolation::kNearest;
  if (name == "bilinear") return Interpolation::kBilinear;
  if (name == "bicubic") return Interpolation::kBicubic;
  throw Error(ErrorCode::kInvalidArgument,
              "data: " + unknown_name("interpolation", name, {"nearest", "bilinear", "bicubic"}));
}

}  // namespace repquant
