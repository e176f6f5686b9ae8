// libjpeg reports errors through a callback that must not return; the only way back that C code
// allows is longjmp. No frame between setjmp and the callback may own anything, so all state lies
// in Decoder, which the caller owns.
#include <csetjmp>
#include <cstdio>

#include <fmt/format.h>
#include <jpeglib.h>
#include <jerror.h>

#include "repquant/core/error.h"
#include "repquant/data/image.h"
#include "repquant/data/image_internal.h"

namespace repquant {
namespace {

// Progressive files with thousands of scans cost minutes for a few kilobytes; real ones have
// about 10.
constexpr int kMaxScans = 100;

struct Decoder {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX] = "";
  int message_code = 0;
  std::vector<uint8_t> row;  // CMYK
  Image image;

  Decoder() {
    info.err = jpeg_std_error(&errors);
    info.client_data = this;
  }
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
};

[[noreturn]] void fail(j_common_ptr info) {
  auto* decoder = static_cast<Decoder*>(info->client_data);
  info->err->format_message(info, decoder->message);
  decoder->message_code = info->err->msg_code;
  std::longjmp(decoder->back, 1);
}

// The library would go on with grey for what is missing.
void on_message(j_common_ptr info, int level) {
  if (level == -1 && info->err->msg_code == JWRN_JPEG_EOF) fail(info);
}

void on_progress(j_common_ptr info) {
  auto* decoder = static_cast<Decoder*>(info->client_data);
  if (decoder->info.input_scan_number > kMaxScans) {
    std::snprintf(decoder->message, sizeof decoder->message, "more than %d scans", kMaxScans);
    std::longjmp(decoder->back, 1);
  }
}

bool read_header(Decoder& d, std::span<const std::byte> bytes) {
  if (setjmp(d.back) != 0) return false;
  d.errors.error_exit = fail;
  d.errors.emit_message = on_message;
  d.errors.output_message = [](j_common_ptr) {};
  jpeg_create_decompress(&d.info);  // keeps err and client_data
  d.progress.progress_monitor = on_progress;
  d.info.progress = &d.progress;
  jpeg_mem_src(&d.info, reinterpret_cast<const unsigned char*>(bytes.data()),
               static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&d.info, TRUE);
  return true;
}

bool start(Decoder& d) {
  if (setjmp(d.back) != 0) return false;
  d.info.dct_method = JDCT_ISLOW;
  d.info.do_fancy_upsampling = TRUE;
  jpeg_start_decompress(&d.info);
  return true;
}

// a * b / 255, rounded.
uint8_t scaled(unsigned a, unsigned b) {
  const unsigned t = a * b + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

// The file holds 255 - ink, so a stored channel times stored black is the light that is left.
void cmyk_to_rgb(const uint8_t* cmyk, int width, uint8_t* rgb) {
  for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    for (int c = 0; c < 3; ++c) {
      rgb[c] = static_cast<uint8_t>(cmyk[3] - scaled(255u - cmyk[c], cmyk[3]));
    }
  }
}

bool read_rows(Decoder& d) {
  if (setjmp(d.back) != 0) return false;
  const bool cmyk = !d.row.empty();
  const size_t stride = static_cast<size_t>(d.image.width) * static_cast<size_t>(d.image.channels);
  while (d.info.output_scanline < d.info.output_height) {
    uint8_t* target = &d.image.pixels[static_cast<size_t>(d.info.output_scanline) * stride];
    JSAMPROW row = cmyk ? d.row.data() : target;
    if (jpeg_read_scanlines(&d.info, &row, 1) != 1) return false;
    if (cmyk) cmyk_to_rgb(d.row.data(), d.image.width, target);
  }
  return true;
}

[[noreturn]] void throw_failure(const Decoder& d, const std::string& subject) {
  const int code = d.message_code;
  const bool exotic = code == JERR_SOF_UNSUPPORTED || code == JERR_BAD_PRECISION ||
                      code == JERR_ARITH_NOTIMPL || code == JERR_CONVERSION_NOTIMPL;
  const bool truncated = code == JWRN_JPEG_EOF;
  throw Error(exotic ? ErrorCode::kUnsupported : ErrorCode::kCorruptFile,
              fmt::format("data: \"{}\": {} ({})", subject,
                          exotic      ? "this kind of JPEG is not supported"
                          : truncated ? "truncated JPEG image"
                                      : "damaged JPEG image",
                          d.message));
}

}  // namespace

Image decode_jpeg(std::span<const std::byte> bytes, const std::string& subject) {
  Decoder d;
  if (!read_header(d, bytes)) throw_failure(d, subject);
  image_detail::check_size(d.info.image_width, d.info.image_height, subject);
  const int components = d.info.num_components;
  if (components != 1 && components != 3 && components != 4) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("data: \"{}\": expected a JPEG of 1, 3 or 4 components, got {}",
                            subject, components));
  }
  d.info.out_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
  d.image = {static_cast<int>(d.info.image_width),
             static_cast<int>(d.info.image_height),
             components == 1 ? 1 : 3,
             {}};
  if (!start(d)) throw_failure(d, subject);
  const size_t width = d.info.image_width;
  d.image.pixels.resize(width * d.info.image_height * static_cast<size_t>(d.image.channels));
  if (components == 4) d.row.resize(width * 4);
  if (!read_rows(d)) throw_failure(d, subject);
  return std::move(d.image);
}

}  // namespace repquant
