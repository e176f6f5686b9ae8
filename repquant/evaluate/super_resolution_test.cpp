#include "repquant/evaluate/super_resolution.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>
#include <png.h>

#include "repquant/core/error.h"
#include "repquant/data/testing.h"

namespace repquant {
namespace {

using namespace testing;

Tensor random_image(int64_t h, int64_t w) {
  Tensor image(DType::kF32, {3, h, w});
  std::mt19937 random(3);
  for (float& x : image.as<float>()) x = static_cast<float>(random() % 1000) / 999.0f;
  return image;
}

// Every pixel becomes s x s; with `blur`, plus a tenth of its left neighbour inside the tile.
Model repeat(int64_t s, bool blur, std::vector<Shape>* seen = nullptr) {
  return Model([=](const Tensor& batch) {
    if (seen != nullptr) seen->push_back(batch.shape());
    const int64_t h = batch.shape()[2], w = batch.shape()[3];
    Tensor out(DType::kF32, {1, 3, s * h, s * w});
    for (int64_t c = 0; c < 3; ++c) {
      for (int64_t y = 0; y < s * h; ++y) {
        for (int64_t x = 0; x < s * w; ++x) {
          const auto at = [&](int64_t column) {
            return batch.as<float>()[static_cast<size_t>((c * h + y / s) * w + column)];
          };
          float value = at(x / s);
          if (blur && x / s > 0) value += 0.1f * at(x / s - 1);
          out.as<float>()[static_cast<size_t>((c * s * h + y) * s * w + x)] = value;
        }
      }
    }
    return out;
  });
}

TEST(SuperResolution, TilesGiveTheWholeImage) {
  for (const auto& [h, w] : std::vector<std::pair<int64_t, int64_t>>{{8, 8}, {9, 21}, {23, 10}}) {
    const Tensor low = random_image(h, w);
    std::vector<Shape> seen;
    const Tensor tiled = upscale(repeat(2, true, &seen), low, {8, 2});
    for (const Shape& shape : seen) EXPECT_EQ(shape, (Shape{1, 3, 8, 8}));
    // The model looks one pixel to the left: a margin of two hides the seams.
    const Tensor whole = upscale(repeat(2, true), low, {});
    ASSERT_EQ(tiled.shape(), (Shape{3, 2 * h, 2 * w}));
    EXPECT_TRUE(
        std::equal(tiled.as<float>().begin(), tiled.as<float>().end(), whole.as<float>().begin()));
    // Without a margin they show, unless there is one tile.
    const Tensor seams = upscale(repeat(2, true), low, {8, 0});
    const bool equal =
        std::equal(seams.as<float>().begin(), seams.as<float>().end(), whole.as<float>().begin());
    EXPECT_EQ(equal, w == 8);
  }
}

TEST(SuperResolution, SmallImagesAreMirroredAndCutAgain) {
  const Tensor low = random_image(5, 7);
  const Tensor got = upscale(repeat(3, false), low, {8, 1});
  const Tensor want = upscale(repeat(3, false), low, {});
  ASSERT_EQ(got.shape(), (Shape{3, 15, 21}));
  EXPECT_TRUE(std::equal(got.as<float>().begin(), got.as<float>().end(), want.as<float>().begin()));
  EXPECT_THROW(upscale(repeat(2, false), random_image(3, 8), {8, 1}), Error);
}

TEST(SuperResolution, LumaByHand) {
  Image a{4, 4, 3, std::vector<uint8_t>(48, 100)}, b = a;
  EXPECT_EQ(luma_psnr_db(a, b, 1), INFINITY);
  b.pixels[0] = 0;  // in the border
  EXPECT_EQ(luma_psnr_db(a, b, 1), INFINITY);
  b.pixels[3 * 5 + 1] = 110;  // green of one of the four inner pixels
  const double difference = 128.553 * 10 / 255;
  EXPECT_NEAR(luma_psnr_db(a, b, 1), 10 * std::log10(65025 / (difference * difference / 4)), 1e-9);
}

TEST(SuperResolution, PixelsAreClippedAndRoundedHalfToEven) {
  Tensor x(DType::kF32, {3, 1, 2});
  const std::vector<float> values{-1, 2, 0.5f / 255, 1.5f / 255, 0.25f, 1};
  std::copy(values.begin(), values.end(), x.as<float>().begin());
  const Image image = to_image(x);
  EXPECT_EQ(image.pixels, (std::vector<uint8_t>{0, 0, 64, 255, 2, 255}));
}

std::vector<std::byte> png_of(const Image& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(pixels.width);
  image.height = static_cast<png_uint_32>(pixels.height);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&image, nullptr, &size, 0, pixels.pixels.data(), 0, nullptr);
  std::vector<std::byte> bytes(size);
  EXPECT_EQ(
      png_image_write_to_memory(&image, bytes.data(), &size, 0, pixels.pixels.data(), 0, nullptr),
      1);
  bytes.resize(size);
  return bytes;
}

TEST(SuperResolution, PairsAreFoundByName) {
  const TempDir dir;
  fs::create_directories(dir / "low");
  fs::create_directories(dir / "high");
  write_bytes(dir / "low/ax2.png", png_of(synthetic_image(6, 5)));
  const Image high = synthetic_image(13, 10);  // a column more than twice the width
  write_bytes(dir / "high/a.png", png_of(high));
  DatasetOptions options;
  options.preprocess = guess_preprocess(3, -1, -1);
  const auto low = open_dataset(dir / "low", options);
  const std::vector<PairScore> scores =
      evaluate_pairs(repeat(2, false), *low, dir / "high", {}, {});
  ASSERT_EQ(scores.size(), 1u);
  EXPECT_EQ(scores[0].name, "ax2.png");
  EXPECT_TRUE(std::isfinite(scores[0].psnr));
  expect_error(ErrorCode::kNotFound, "original named",
               [&] { evaluate_pairs(repeat(3, false), *low, dir / "high", {}, {}); });
  write_bytes(dir / "high/ax2.png", png_of(synthetic_image(11, 10)));
  expect_error(ErrorCode::kCorruptFile, "12 x 10",
               [&] { evaluate_pairs(repeat(2, false), *low, dir / "high", {}, {}); });
}

TEST(SuperResolution, TilingText) {
  EXPECT_EQ(parse_tiling("64:8").margin, 8);
  EXPECT_EQ(parse_tiling("64").size, 64);
  for (const char* bad : {"", "64:", ":8", "64:32", "0", "64:-1", "64:8:1", "a"})
    EXPECT_THROW(parse_tiling(bad), Error) << bad;
}

}  // namespace
}  // namespace repquant
