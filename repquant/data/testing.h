#pragma once
// Shared by the tests of this folder.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "repquant/core/error.h"
#include "repquant/data/image.h"

namespace repquant::testing {

namespace fs = std::filesystem;

inline fs::path repository() {
  return fs::path(__FILE__).parent_path().parent_path().parent_path();
}

inline fs::path assets() {
  const char* given = std::getenv("REPQUANT_ASSETS");
  return given != nullptr ? fs::path(given) : repository() / ".." / "shared" / "assets";
}

#define REPQUANT_NEED_ASSETS()                                                      \
  do {                                                                              \
    if (!std::filesystem::is_directory(::repquant::testing::assets()))              \
      GTEST_SKIP() << "assets missing: " << ::repquant::testing::assets().string(); \
  } while (false)

class TempDir {
 public:
  TempDir() {
    std::random_device random;
    path_ = fs::temp_directory_path() /
            ("repquant_data_" + std::to_string(random()) + std::to_string(random()));
    fs::create_directories(path_);
  }
  ~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  fs::path operator/(const std::string& name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

inline std::vector<uint8_t> pixels_from_hex(std::string_view text) {
  std::vector<uint8_t> pixels;
  for (const std::byte b : from_hex(text)) pixels.push_back(std::to_integer<uint8_t>(b));
  return pixels;
}

inline std::vector<std::byte> to_bytes(std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

inline void write_bytes(const fs::path& path, std::span<const std::byte> bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  ASSERT_TRUE(file.good()) << path;
}

inline void write_text(const fs::path& path, std::string_view text) {
  write_bytes(path, to_bytes(text));
}

// The error of `body`, or a failed test. `part` must occur in the message.
inline void expect_error(ErrorCode code, const std::string& part,
                         const std::function<void()>& body) {
  try {
    body();
    ADD_FAILURE() << "no error; expected one with \"" << part << "\"";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

// The 23 x 17 picture behind the resize fixtures, at any size.
inline Image synthetic_image(int width = 23, int height = 17) {
  Image image{width, height, 3, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        image.pixels.push_back(
            static_cast<uint8_t>(x * x * 3 + y * y * 5 + x * y * 2 + c * 85 + (x ^ y) * 11));
      }
    }
  }
  return image;
}

// colour_type and bits as libpng names them; rows as stored.
std::vector<std::byte> encode_png(int width, int height, int colour_type, int bits,
                                  const std::vector<std::vector<uint8_t>>& rows,
                                  bool interlaced = false,
                                  const std::vector<uint8_t>& palette = {});
std::vector<std::byte> encode_png(const Image& image);

}  // namespace repquant::testing
