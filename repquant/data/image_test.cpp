#include "repquant/data/image.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <png.h>
#include <zlib.h>

#include "repquant/core/files.h"
#include "repquant/data/npy.h"
#include "repquant/data/testing.h"
#include "repquant/data/testing_fixtures.h"

namespace repquant {
namespace testing {

std::vector<std::byte> encode_png(int width, int height, int colour_type, int bits,
                                  const std::vector<std::vector<uint8_t>>& rows, bool interlaced,
                                  const std::vector<uint8_t>& palette) {
  std::vector<std::byte> out;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  const auto append = [](png_structp p, png_bytep data, size_t size) {
    auto* target = static_cast<std::vector<std::byte>*>(png_get_io_ptr(p));
    const auto* bytes = reinterpret_cast<const std::byte*>(data);
    target->insert(target->end(), bytes, bytes + size);
  };
  png_set_write_fn(png, &out, append, [](png_structp) {});
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), bits,
               colour_type, interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  std::vector<png_color> colours;
  for (size_t i = 0; i + 2 < palette.size(); i += 3)
    colours.push_back({palette[i], palette[i + 1], palette[i + 2]});
  if (!colours.empty()) {
    png_set_PLTE(png, info, colours.data(), static_cast<int>(colours.size()));
    png_byte alpha[1] = {128};
    png_set_tRNS(png, info, alpha, 1, nullptr);
  }
  png_write_info(png, info);
  std::vector<png_bytep> pointers;
  for (const auto& row : rows) pointers.push_back(const_cast<png_bytep>(row.data()));
  png_write_image(png, pointers.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return out;
}

std::vector<std::byte> encode_png(const Image& image) {
  std::vector<std::vector<uint8_t>> rows;
  const size_t stride = static_cast<size_t>(image.width) * static_cast<size_t>(image.channels);
  for (size_t y = 0; y < static_cast<size_t>(image.height); ++y) {
    const auto begin = image.pixels.begin() + static_cast<std::ptrdiff_t>(y * stride);
    rows.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(stride));
  }
  return encode_png(image.width, image.height,
                    image.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, 8, rows);
}

}  // namespace testing

namespace {

using namespace testing;

// The inverse DCT is defined to the bit (JDCT_ISLOW), so other versions of the library give the
// same numbers for these colour and sampling modes.
void expect_jpeg(std::string_view file, std::string_view pixels, int width, int height,
                 int channels) {
  const Image image = decode_image(from_hex(file), "fixture.jpg");
  EXPECT_EQ(image.width, width);
  EXPECT_EQ(image.height, height);
  EXPECT_EQ(image.channels, channels);
  EXPECT_EQ(image.pixels, pixels_from_hex(pixels));
}

TEST(Jpeg, ColourAsPillow) { expect_jpeg(kColourJpeg, kColourJpegPixels, 16, 12, 3); }
TEST(Jpeg, GreyAsPillow) { expect_jpeg(kGreyJpeg, kGreyJpegPixels, 8, 8, 1); }
TEST(Jpeg, InvertedCmykAsPillow) { expect_jpeg(kCmykJpeg, kCmykJpegPixels, 8, 8, 3); }
TEST(Jpeg, ProgressiveAsPillow) {
  expect_jpeg(kProgressiveJpeg, kProgressiveJpegPixels, 16, 12, 3);
}

TEST(Jpeg, EveryTruncationIsAnError) {
  for (const std::string_view file : {kColourJpeg, kGreyJpeg, kCmykJpeg, kProgressiveJpeg}) {
    const std::vector<std::byte> bytes = from_hex(file);
    for (size_t length = 0; length < bytes.size(); ++length) {
      EXPECT_THROW(decode_image(std::span(bytes).first(length), "cut.jpg"), Error) << length;
    }
  }
}

// Whatever the bytes: an image or an Error, never a crash (sanitizers) or another exception.
void flip_bits(const std::vector<std::byte>& bytes) {
  int errors = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int mask : {1, 16, 128, 255}) {
      std::vector<std::byte> damaged = bytes;
      damaged[i] ^= static_cast<std::byte>(mask);
      try {
        const Image image = decode_image(damaged, "damaged");
        EXPECT_EQ(image.pixels.size(), static_cast<size_t>(image.width) *
                                           static_cast<size_t>(image.height) *
                                           static_cast<size_t>(image.channels));
      } catch (const Error& error) {
        EXPECT_TRUE(error.code() == ErrorCode::kCorruptFile ||
                    error.code() == ErrorCode::kUnsupported)
            << error.what();
        ++errors;
      }
    }
  }
  EXPECT_GT(errors, 0);
}

TEST(Jpeg, FlippedBitsNeverCrash) {
  for (const std::string_view file : {kColourJpeg, kGreyJpeg, kCmykJpeg}) flip_bits(from_hex(file));
}

TEST(Jpeg, AbsurdSizeIsRefusedBeforeAllocation) {
  std::vector<std::byte> bytes = from_hex(kColourJpeg);
  for (size_t i = 0; i + 9 < bytes.size();
       ++i) {  // the frame header: marker, length, precision, height, width
    if (bytes[i] == std::byte{0xff} && bytes[i + 1] == std::byte{0xc0}) {
      for (const size_t k : {5, 7})
        bytes[i + k] = std::byte{0xfd}, bytes[i + k + 1] = std::byte{0xe8};
    }
  }
  expect_error(ErrorCode::kCorruptFile, "got 65000 x 65000",
               [&] { decode_image(bytes, "big.jpg"); });
}

TEST(Png, GreyOfEveryDepth) {
  // Values 0 .. 3 in the low bits, left to right: 1 bit 1010, 2 bits 0123, 4 bits 0 5 10 15.
  const auto pixels = [](int bits, std::vector<uint8_t> row) {
    return decode_image(encode_png(4, 1, PNG_COLOR_TYPE_GRAY, bits, {std::move(row)}), "grey.png")
        .pixels;
  };
  EXPECT_EQ(pixels(1, {0xa0}), (std::vector<uint8_t>{255, 0, 255, 0}));
  EXPECT_EQ(pixels(2, {0x1b}), (std::vector<uint8_t>{0, 85, 170, 255}));
  EXPECT_EQ(pixels(4, {0x05, 0xaf}), (std::vector<uint8_t>{0, 85, 170, 255}));
  EXPECT_EQ(pixels(8, {0, 1, 128, 255}), (std::vector<uint8_t>{0, 1, 128, 255}));
  EXPECT_EQ(pixels(16, {0, 200, 1, 255, 127, 255, 255, 0}), (std::vector<uint8_t>{0, 1, 127, 255}));
}

TEST(Png, AlphaPaletteAndDepthBecomePlainColours) {
  const std::vector<uint8_t> rgb{1, 2, 3, 250, 251, 252};
  const Image expected{2, 1, 3, rgb};
  EXPECT_EQ(decode_image(encode_png(2, 1, PNG_COLOR_TYPE_RGB, 8, {rgb}), "a"), expected);
  EXPECT_EQ(
      decode_image(encode_png(2, 1, PNG_COLOR_TYPE_RGBA, 8, {{1, 2, 3, 0, 250, 251, 252, 9}}), "b"),
      expected);
  EXPECT_EQ(decode_image(encode_png(2, 1, PNG_COLOR_TYPE_RGB, 16,
                                    {{1, 99, 2, 0, 3, 255, 250, 1, 251, 1, 252, 1}}),
                         "c"),
            expected);
  EXPECT_EQ(decode_image(encode_png(2, 1, PNG_COLOR_TYPE_PALETTE, 8, {{0, 1}}, false, rgb), "d"),
            expected);
  EXPECT_EQ(decode_image(encode_png(2, 1, PNG_COLOR_TYPE_PALETTE, 1, {{0x40}}, false, rgb), "e"),
            expected);
  const Image grey{2, 1, 1, {7, 200}};
  EXPECT_EQ(decode_image(encode_png(2, 1, PNG_COLOR_TYPE_GRAY_ALPHA, 8, {{7, 0, 200, 255}}), "f"),
            grey);
}

TEST(Png, InterlacedEqualsPlain) {
  const Image image = synthetic_image();
  std::vector<std::vector<uint8_t>> rows;
  for (size_t y = 0; y < 17; ++y) {
    const auto begin = image.pixels.begin() + static_cast<std::ptrdiff_t>(y * 69);
    rows.emplace_back(begin, begin + 69);
  }
  EXPECT_EQ(decode_image(encode_png(23, 17, PNG_COLOR_TYPE_RGB, 8, rows, true), "interlaced"),
            image);
  EXPECT_EQ(decode_image(encode_png(image), "plain"), image);
}

TEST(Png, EveryTruncationIsAnErrorAndFlippedBitsNeverCrash) {
  const std::vector<std::byte> bytes = encode_png(synthetic_image(9, 7));
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THROW(decode_image(std::span(bytes).first(length), "cut.png"), Error) << length;
  }
  flip_bits(bytes);
}

TEST(Png, AbsurdSizeIsRefusedBeforeAllocation) {
  std::vector<std::byte> bytes = encode_png(synthetic_image(9, 7));
  for (const size_t p : {size_t{17}, size_t{21}})
    bytes[p] = std::byte{1};  // + 65,536 pixels a side
  const auto* header = reinterpret_cast<const Bytef*>(bytes.data() + 12);
  const auto crc = static_cast<uint32_t>(crc32(0, header, 17));
  for (size_t i = 0; i < 4; ++i) bytes[29 + i] = static_cast<std::byte>(crc >> (24 - 8 * i));
  expect_error(ErrorCode::kCorruptFile, "got 65545 x 65543",
               [&] { decode_image(bytes, "big.png"); });
}

TEST(Image, WhatIsNoImageIsNamed) {
  expect_error(ErrorCode::kCorruptFile, "\"a.jpg\": expected a JPEG or PNG image, got text",
               [] { decode_image(to_bytes("hello there"), "a.jpg"); });
  expect_error(ErrorCode::kCorruptFile, "got an empty file", [] { decode_image({}, "a.jpg"); });
}

TEST(Image, ExtensionsAndKinds) {
  EXPECT_TRUE(has_image_extension("a/b.JPEG"));
  EXPECT_TRUE(has_image_extension("b.Png"));
  EXPECT_FALSE(has_image_extension("jpg"));
  EXPECT_FALSE(has_image_extension("b.jpg.txt"));
  EXPECT_EQ(sniff_image(from_hex(kGreyJpeg)), ImageKind::kJpeg);
  EXPECT_EQ(sniff_image(encode_png(synthetic_image(2, 2))), ImageKind::kPng);
}

TEST(Image, GreyAndBack) {
  const Image image = crop(synthetic_image(), 0, 0, 4, 4);
  const Image grey = to_channels(image, 1);
  EXPECT_EQ(grey.pixels, pixels_from_hex(kGreyOfSynthetic));  // Pillow's convert("L")
  const Image again = to_channels(grey, 3);
  for (size_t i = 0; i < again.pixels.size(); ++i) EXPECT_EQ(again.pixels[i], grey.pixels[i / 3]);
}

TEST(Image, Crop) {
  const Image image = synthetic_image();
  const Image part = crop(image, 5, 3, 4, 2);
  for (int y = 0; y < 2; ++y) {
    for (int x = 0; x < 12; ++x) {
      EXPECT_EQ(part.pixels[static_cast<size_t>(y * 12 + x)],
                image.pixels[static_cast<size_t>((y + 3) * 69 + 15 + x)]);
    }
  }
}

std::vector<uint8_t> corner(const Image& image) { return crop(image, 0, 0, 6, 4).pixels; }

TEST(Resize, AsPillow) {
  const Image image = synthetic_image();
  using enum Interpolation;
  EXPECT_EQ(resize(image, 11, 8, kBicubic).pixels, pixels_from_hex(kBicubic11x8));
  EXPECT_EQ(resize(image, 11, 8, kBilinear).pixels, pixels_from_hex(kBilinear11x8));
  EXPECT_EQ(resize(image, 11, 8, kNearest).pixels, pixels_from_hex(kNearest11x8));
  EXPECT_EQ(corner(resize(image, 29, 31, kBicubic)), pixels_from_hex(kBicubic29x31Corner));
  EXPECT_EQ(corner(resize(image, 29, 31, kBilinear)), pixels_from_hex(kBilinear29x31Corner));
  EXPECT_EQ(corner(resize(image, 29, 31, kNearest)), pixels_from_hex(kNearest29x31Corner));
}

TEST(Resize, KeepsConstantsAndSizes) {
  Image image{31, 20, 3, {}};
  image.pixels.assign(31 * 20 * 3, 201);
  for (const auto interpolation :
       {Interpolation::kNearest, Interpolation::kBilinear, Interpolation::kBicubic}) {
    for (const auto& [width, height] :
         {std::pair{1, 1}, {31, 20}, {7, 50}, {200, 3}, {31, 9}, {12, 20}}) {
      const Image out = resize(image, width, height, interpolation);
      EXPECT_EQ(out.width, width);
      EXPECT_EQ(out.height, height);
      // Weights sum to 1 within 2^-22 a tap, at most 63 taps: far below half a level.
      EXPECT_TRUE(
          std::all_of(out.pixels.begin(), out.pixels.end(), [](uint8_t x) { return x == 201; }));
    }
  }
}

// Newer versions of Pillow take columns first when that is cheaper; the rounding between the passes
// then differs by one level at most.
TEST(Resize, TenRealImagesAgreeWithPillow) {
  REPQUANT_NEED_ASSETS();
  const fs::path python = repository() / ".venv/bin/python";
  const TempDir temp;
  const std::string script = R"(
import sys, numpy as np
from PIL import Image
source, target = sys.argv[1:3]
import os
for i, name in enumerate(sorted(os.listdir(source))[::25][:10]):
    image = Image.open(os.path.join(source, name)).convert('RGB')
    w, h = image.size
    size = (256 * w // min(w, h), 256 * h // min(w, h))
    for kind, out in (('decoded', image), ('bicubic', image.resize(size, Image.BICUBIC)),
                      ('bilinear', image.resize((160, 120), Image.BILINEAR))):
        np.save(f'{target}/{i}_{kind}.npy', np.asarray(out))
    open(f'{target}/{i}_name', 'w').write(name)
)";
  write_text(temp / "reference.py", script);
  const fs::path folder = assets() / "vision/imagenet/train";
  const std::string command =
      fmt::format("'{}' '{}' '{}' '{}' > /dev/null 2>&1", python.string(),
                  (temp / "reference.py").string(), folder.string(), temp.path().string());
  if (!fs::exists(python) || std::system(command.c_str()) != 0) {
    GTEST_SKIP() << "python with pillow missing: " << python.string();
  }
  for (int i = 0; i < 10; ++i) {
    const auto text = read_file(temp / fmt::format("{}_name", i));
    const std::string name(reinterpret_cast<const char*>(text.data()), text.size());
    const Image image = to_channels(read_image(folder / name), 3);
    const auto compare = [&](const std::string& kind, const Image& ours) {
      const Tensor theirs = read_npy(temp / fmt::format("{}_{}.npy", i, kind));
      ASSERT_EQ(theirs.shape(), (Shape{ours.height, ours.width, 3})) << name << " " << kind;
      int worst = 0;
      for (size_t k = 0; k < ours.pixels.size(); ++k) {
        worst = std::max(worst, std::abs(ours.pixels[k] - theirs.as<uint8_t>()[k]));
      }
      EXPECT_LE(worst, 1) << name << " " << kind;
    };
    const int shorter = std::min(image.width, image.height);
    compare("decoded", image);
    compare("bicubic", resize(image, 256 * image.width / shorter, 256 * image.height / shorter,
                              Interpolation::kBicubic));
    compare("bilinear", resize(image, 160, 120, Interpolation::kBilinear));
  }
}

}  // namespace
}  // namespace repquant
