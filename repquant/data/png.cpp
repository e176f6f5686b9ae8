// As in jpeg.cpp: libpng returns from errors by longjmp, so all state lies in Decoder.
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <fmt/format.h>
#include <png.h>

#include "repquant/core/error.h"
#include "repquant/data/image.h"
#include "repquant/data/image_internal.h"

namespace repquant {
namespace {

struct Decoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const std::byte> rest;
  bool truncated = false;
  char message[128] = "";
  Image image;
  std::vector<png_bytep> rows;

  Decoder() = default;
  ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
};

[[noreturn]] void fail(png_structp png, png_const_charp text) {
  auto* decoder = static_cast<Decoder*>(png_get_error_ptr(png));
  std::snprintf(decoder->message, sizeof decoder->message, "%s", text);
  png_longjmp(png, 1);
}

void ignore(png_structp, png_const_charp) {}

void read_bytes(png_structp png, png_bytep out, size_t count) {
  auto* decoder = static_cast<Decoder*>(png_get_io_ptr(png));
  if (count > decoder->rest.size()) {
    decoder->truncated = true;
    png_error(png, "unexpected end");
  }
  std::memcpy(out, decoder->rest.data(), count);
  decoder->rest = decoder->rest.subspan(count);
}

bool read_header(Decoder& d) {
  if (setjmp(png_jmpbuf(d.png)) != 0) return false;
  png_set_read_fn(d.png, &d, read_bytes);
  png_set_user_limits(d.png, 0x7fffffff, 0x7fffffff);  // check_size() refuses with a better message
  png_set_chunk_cache_max(d.png, 64);
  png_set_chunk_malloc_max(d.png, 16 << 20);
  png_read_info(d.png, d.info);
  return true;
}

// 8-bit grey or RGB, whatever is stored.
bool prepare(Decoder& d) {
  if (setjmp(png_jmpbuf(d.png)) != 0) return false;
  const int type = png_get_color_type(d.png, d.info);
  if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(d.png);
  if (type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(d.png);
  png_set_strip_16(d.png);
  png_set_strip_alpha(d.png);
  png_set_interlace_handling(d.png);
  png_read_update_info(d.png, d.info);
  return true;
}

bool read_rows(Decoder& d) {
  if (setjmp(png_jmpbuf(d.png)) != 0) return false;
  png_read_image(d.png, d.rows.data());
  png_read_end(d.png, nullptr);
  return true;
}

[[noreturn]] void throw_failure(const Decoder& d, const std::string& subject) {
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("data: \"{}\": {} PNG image ({})", subject,
                          d.truncated ? "truncated" : "damaged", d.message));
}

}  // namespace

Image decode_png(std::span<const std::byte> bytes, const std::string& subject) {
  Decoder d;
  d.rest = bytes;
  d.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &d, fail, ignore);
  if (d.png != nullptr) d.info = png_create_info_struct(d.png);
  if (d.info == nullptr) throw Error(ErrorCode::kResourceExhausted, "data: libpng: out of memory");
  if (!read_header(d)) throw_failure(d, subject);
  const int64_t width = png_get_image_width(d.png, d.info);
  const int64_t height = png_get_image_height(d.png, d.info);
  image_detail::check_size(width, height, subject);
  if (!prepare(d)) throw_failure(d, subject);
  const int channels = png_get_channels(d.png, d.info);
  const size_t stride = static_cast<size_t>(width) * static_cast<size_t>(channels);
  REPQUANT_CHECK((channels == 1 || channels == 3) && png_get_rowbytes(d.png, d.info) == stride);
  d.image = {static_cast<int>(width), static_cast<int>(height), channels, {}};
  d.image.pixels.resize(stride * static_cast<size_t>(height));
  for (int64_t y = 0; y < height; ++y)
    d.rows.push_back(&d.image.pixels[static_cast<size_t>(y) * stride]);
  if (!read_rows(d)) throw_failure(d, subject);
  return std::move(d.image);
}

}  // namespace repquant
