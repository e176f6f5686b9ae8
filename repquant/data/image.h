#pragma once
// 8-bit images: decoding of JPEG and PNG, antialiased resizing, cropping, colour conversion. What
// comes out equals what Pillow's open().convert("RGB") and resize() give (JPEG: up to the version
// of libjpeg-turbo). Stored orientation and colour profiles are not applied. Decoders treat bytes
// as hostile.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace repquant {

struct Image {                              // interleaved rows, no padding
  int width = 0, height = 0, channels = 0;  // channels: 1 grey, 3 RGB
  std::vector<uint8_t> pixels;              // [height][width][channels]
  bool operator==(const Image&) const = default;
};

inline constexpr int64_t kMaxImagePixels = 64'000'000;  // larger ones are refused before allocation
inline constexpr int64_t kMaxImageSide = 65'535;

enum class ImageKind { kUnknown, kJpeg, kPng };
ImageKind sniff_image(std::span<const std::byte> bytes);      // by the first bytes
bool has_image_extension(const std::filesystem::path& path);  // .jpg .jpeg .png, any case

// JPEG: 8 bits, grey, YCbCr, RGB, CMYK and YCCK (stored inverted, as Adobe does). PNG: every colour
// type and depth; alpha is dropped, 16 bits keep the high byte (Pillow does so for colour, and
// clips 16-bit grey at 255, which is not followed). Grey stays one channel. Throws kCorruptFile
// (not an image, truncated, too large), kUnsupported (an exotic coding).
Image decode_image(std::span<const std::byte> bytes, const std::string& subject);
Image decode_jpeg(std::span<const std::byte> bytes, const std::string& subject);
Image decode_png(std::span<const std::byte> bytes, const std::string& subject);
Image read_image(const std::filesystem::path& path);

Image to_channels(const Image& image, int channels);  // 1: luma of Pillow's "L"; 3: grey repeated

enum class Interpolation { kNearest, kBilinear, kBicubic };
// An unknown name throws kInvalidArgument naming the nearest.
Interpolation interpolation_from_name(std::string_view name);
// Convolution resampling with the filter stretched by the reduction factor, fixed-point
// coefficients of 22 bits, rows first, rounded to 8 bits between the passes
// (docs/pipeline/data.md). Sizes >= 1.
Image resize(const Image& image, int width, int height, Interpolation interpolation);
Image crop(const Image& image, int left, int top, int width, int height);  // inside the image

}  // namespace repquant
