#include "repquant/evaluate/super_resolution.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/files.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

struct Plane {  // [C, H, W]
  int64_t c, h, w;
  explicit Plane(const Shape& shape) : c(shape.at(0)), h(shape.at(1)), w(shape.at(2)) {}
};

// Where tiles begin along one axis.
std::vector<int64_t> starts(int64_t length, const Tiling& tiling) {
  std::vector<int64_t> list;
  const int64_t step = tiling.size - 2 * tiling.margin;
  for (int64_t at = 0; at < length - tiling.size; at += step) list.push_back(at);
  list.push_back(length - tiling.size);
  return list;
}

// Mirrored on the right and below up to at least `size`.
Tensor mirrored(const Tensor& low, int64_t size) {
  const Plane p(low.shape());
  const int64_t h = std::max(p.h, size), w = std::max(p.w, size);
  if (h == p.h && w == p.w) return low;
  if (h > 2 * p.h || w > 2 * p.w) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("evaluate: --tile: expected images of half a tile or more, got {} x {}",
                            p.h, p.w));
  }
  Tensor out(DType::kF32, {p.c, h, w});
  const auto from = low.as<float>();
  const auto to = out.as<float>();
  const auto mirror = [](int64_t i, int64_t n) { return i < n ? i : 2 * n - 1 - i; };
  for (int64_t c = 0; c < p.c; ++c) {
    for (int64_t y = 0; y < h; ++y) {
      for (int64_t x = 0; x < w; ++x) {
        to[static_cast<size_t>((c * h + y) * w + x)] =
            from[static_cast<size_t>((c * p.h + mirror(y, p.h)) * p.w + mirror(x, p.w))];
      }
    }
  }
  return out;
}

// [1, C, rows, columns] of a [C, H, W] image, or copied back into one.
Tensor cut(const Tensor& image, int64_t top, int64_t left, int64_t rows, int64_t columns) {
  const Plane p(image.shape());
  Tensor out(DType::kF32, {1, p.c, rows, columns});
  for (int64_t c = 0; c < p.c; ++c) {
    for (int64_t y = 0; y < rows; ++y) {
      std::memcpy(out.as<float>().data() + (c * rows + y) * columns,
                  image.as<float>().data() + (c * p.h + top + y) * p.w + left,
                  static_cast<size_t>(columns) * sizeof(float));
    }
  }
  return out;
}

// The model's answer to one tile [1, C, h, w]; `scale` becomes known with the first.
Tensor answer(const Model& model, const Tensor& tile, int64_t& scale) {
  const Tensor out = model(tile);
  const Shape& got = out.shape();
  const int64_t h = tile.shape()[2], w = tile.shape()[3];
  const bool fits = out.rank() == 4 && out.dtype() == DType::kF32 && got[0] == 1 && got[1] == 3 &&
                    h > 0 && got[2] % h == 0 && got[2] / h >= 1 && got[3] == got[2] / h * w &&
                    (scale == 0 || got[2] / h == scale);
  if (!fits) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("evaluate: psnr: expected an image of a whole multiple of {} x {}, the "
                            "model answers {}",
                            h, w, to_string(got)));
  }
  scale = got[2] / h;
  return out;
}

double luma(const Image& image, int64_t y, int64_t x) {
  const auto* p = image.pixels.data() + 3 * (y * image.width + x);
  return 16 + (65.481 * p[0] + 128.553 * p[1] + 24.966 * p[2]) / 255;
}

Image cut_image(const Image& image, int width, int height) {
  Image out{width, height, image.channels, {}};
  for (int y = 0; y < height; ++y) {
    const auto* row = image.pixels.data() + static_cast<size_t>(y) * image.width * image.channels;
    out.pixels.insert(out.pixels.end(), row, row + static_cast<size_t>(width) * image.channels);
  }
  return out;
}

// Stem -> file.
std::map<std::string, fs::path> originals(const fs::path& folder) {
  std::map<std::string, fs::path> found;
  if (!fs::is_directory(folder)) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("evaluate: --pairs: \"{}\": expected a folder of the original images",
                            folder.string()));
  }
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (has_image_extension(entry.path())) found[entry.path().stem().string()] = entry.path();
  }
  return found;
}

Image original_of(const std::map<std::string, fs::path>& files, const std::string& name,
                  int64_t scale) {
  const std::string stem = fs::path(name).stem().string(), end = fmt::format("x{}", scale);
  auto file = files.find(stem);
  if (file == files.end() && stem.ends_with(end))
    file = files.find(stem.substr(0, stem.size() - end.size()));
  if (file == files.end()) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("evaluate: --pairs: \"{}\": expected an original named \"{}\"", name,
                            stem.ends_with(end) ? stem.substr(0, stem.size() - end.size()) : stem));
  }
  Image image = decode_image(read_file(file->second), file->second.string());
  if (image.channels == 3) return image;
  Image colour{image.width, image.height, 3, {}};
  for (const uint8_t grey : image.pixels) colour.pixels.insert(colour.pixels.end(), 3, grey);
  return colour;
}

}  // namespace

Tiling parse_tiling(const std::string& text) {
  Tiling tiling;
  const size_t colon = text.find(':');
  const auto number = [&](const std::string& part, int64_t& value) {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    return error == std::errc() && end == part.data() + part.size();
  };
  const bool read = number(text.substr(0, colon), tiling.size) &&
                    (colon == std::string::npos || number(text.substr(colon + 1), tiling.margin));
  if (!read || tiling.size < 1 || tiling.margin < 0 || 2 * tiling.margin >= tiling.size) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("--tile \"{}\": expected size:margin, two margins smaller than a tile", text),
        "for example --tile 64:8");
  }
  return tiling;
}

Tensor upscale(const Model& model, const Tensor& low, const Tiling& tiling) {
  REPQUANT_CHECK(low.rank() == 3 && low.dtype() == DType::kF32);
  const Plane whole(low.shape());
  int64_t scale = 0;
  if (tiling.size == 0) {
    Tensor out = answer(model, cut(low, 0, 0, whole.h, whole.w), scale);
    out.reshape({whole.c, whole.h * scale, whole.w * scale});
    return out;
  }
  const Tensor image = mirrored(low, tiling.size);
  const Plane p(image.shape());
  Tensor out;
  for (const int64_t top : starts(p.h, tiling)) {
    for (const int64_t left : starts(p.w, tiling)) {
      Tensor tile = answer(model, cut(image, top, left, tiling.size, tiling.size), scale);
      const int64_t side = tiling.size * scale;
      tile.reshape({p.c, side, side});
      if (out.size() == 0) out = Tensor(DType::kF32, {p.c, p.h * scale, p.w * scale});
      const int64_t skip_y = top > 0 ? tiling.margin * scale : 0,
                    skip_x = left > 0 ? tiling.margin * scale : 0;
      for (int64_t c = 0; c < p.c; ++c) {
        for (int64_t y = skip_y; y < side; ++y) {
          std::memcpy(out.as<float>().data() + (c * p.h * scale + top * scale + y) * p.w * scale +
                          left * scale + skip_x,
                      tile.as<float>().data() + (c * side + y) * side + skip_x,
                      static_cast<size_t>(side - skip_x) * sizeof(float));
        }
      }
    }
  }
  if (p.h == whole.h && p.w == whole.w) return out;
  Tensor kept = cut(out, 0, 0, whole.h * scale, whole.w * scale);
  kept.reshape({p.c, whole.h * scale, whole.w * scale});
  return kept;
}

Image to_image(const Tensor& pixels) {
  const Plane p(pixels.shape());
  REPQUANT_CHECK(p.c == 3);
  Image image{static_cast<int>(p.w), static_cast<int>(p.h), 3, {}};
  image.pixels.resize(static_cast<size_t>(3 * p.h * p.w));
  const auto x = pixels.as<float>();
  const auto plane = static_cast<size_t>(p.h * p.w);
  for (size_t i = 0; i < plane; ++i) {
    for (size_t c = 0; c < 3; ++c) {
      const float clipped = std::min(std::max(x[c * plane + i], 0.0f), 1.0f);
      image.pixels[3 * i + c] = static_cast<uint8_t>(std::nearbyint(clipped * 255.0f));
    }
  }
  return image;
}

double luma_psnr_db(const Image& a, const Image& b, int64_t border) {
  REPQUANT_CHECK(a.width == b.width && a.height == b.height && a.channels == 3 && b.channels == 3);
  double sum = 0;
  int64_t count = 0;
  for (int64_t y = border; y < a.height - border; ++y) {
    for (int64_t x = border; x < a.width - border; ++x) {
      const double difference = luma(a, y, x) - luma(b, y, x);
      sum += difference * difference;
      ++count;
    }
  }
  if (count == 0)
    throw Error(ErrorCode::kInvalidArgument,
                "evaluate: psnr: expected images larger than the border");
  if (sum == 0) return INFINITY;
  return 10 * std::log10(255.0 * 255.0 / (sum / static_cast<double>(count)));
}

std::vector<PairScore> evaluate_pairs(const Model& model, const Dataset& low, const fs::path& high,
                                      const Tiling& tiling, const EvaluateOptions& options) {
  const std::map<std::string, fs::path> files = originals(high);
  std::vector<PairScore> scores;
  for (int64_t i = 0; i < low.size(); ++i) {
    if (options.stop != nullptr && options.stop->raised())
      throw Interrupted(fmt::format("evaluate: interrupted after {} of {} images", i, low.size()));
    const Sample sample = low.load(i);
    if (sample.input.rank() != 3 || sample.input.shape()[0] != 3) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("evaluate: psnr: expected colour images, got {}",
                              to_string(sample.input.shape())));
    }
    const Image got = to_image(upscale(model, sample.input, tiling));
    const int64_t scale = got.height / sample.input.shape()[1];
    const Image original = original_of(files, sample.name, scale);
    if (original.width < got.width || original.height < got.height) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("evaluate: --pairs: \"{}\": expected an original of {} x {} or more, "
                              "got {} x {}",
                              sample.name, got.width, got.height, original.width, original.height));
    }
    scores.push_back(
        {sample.name, luma_psnr_db(got, cut_image(original, got.width, got.height), scale)});
    if (options.sink != nullptr) {
      options.sink->progress({options.pass, fmt::format("image {}/{}", i + 1, low.size()), "", "",
                              static_cast<double>(i + 1) / static_cast<double>(low.size())});
    }
  }
  return scores;
}

}  // namespace repquant
