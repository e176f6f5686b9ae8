// The IDX format of MNIST: two zero bytes, a type, a rank, big-endian sizes, elements. Here type 8
// (uint8) only.
#include <algorithm>
#include <array>
#include <cstring>

#include <fmt/format.h>
#include <zlib.h>

#include "repquant/core/error.h"
#include "repquant/core/files.h"
#include "repquant/data/dataset_internal.h"

namespace repquant::data_detail {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kLimit = 4ull << 30;
constexpr uint64_t kDeflateRatio = 1032;  // no deflate stream unpacks to more
constexpr size_t kLargestHeader = 4 + 4 * 4;

[[noreturn]] void fail(const std::string& subject, const std::string& what) {
  throw Error(ErrorCode::kCorruptFile, fmt::format("data: \"{}\": {}", subject, what));
}

class Inflater {
 public:
  explicit Inflater(std::span<const std::byte> bytes) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    constexpr int kGzip = 16 + MAX_WBITS;
    if (inflateInit2(&stream_, kGzip) != Z_OK)
      throw Error(ErrorCode::kResourceExhausted, "data: zlib: out of memory");
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // At most `limit` bytes from the start; fewer when the stream ends before.
  std::vector<std::byte> read(size_t limit, const std::string& subject) {
    std::vector<std::byte> out;
    while (out.size() < limit) {
      constexpr size_t kChunk = 1 << 20;
      const size_t begin = out.size(), chunk = std::min(limit - begin, kChunk);
      out.resize(begin + chunk);
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + begin);
      stream_.avail_out = static_cast<uInt>(chunk);
      const int status = inflate(&stream_, Z_NO_FLUSH);
      out.resize(begin + chunk - stream_.avail_out);
      if (status == Z_STREAM_END) break;
      if (status == Z_BUF_ERROR ||
          (status == Z_OK && stream_.avail_in == 0 && stream_.avail_out > 0)) {
        fail(subject, "truncated gzip data");
      }
      if (status != Z_OK)
        fail(subject, fmt::format("damaged gzip data ({})", stream_.msg ? stream_.msg : "zlib"));
    }
    return out;
  }

 private:
  z_stream stream_{};
};

struct Header {
  Shape shape;
  size_t offset = 0, end = 0;  // of the elements
};

Header parse_header(std::span<const std::byte> bytes, const std::string& subject) {
  const auto at = [&](size_t i) { return std::to_integer<uint32_t>(bytes[i]); };
  if (bytes.size() < 4 || at(0) != 0 || at(1) != 0)
    fail(subject, "expected IDX data, got something else");
  if (at(2) != 8) fail(subject, fmt::format("expected IDX of uint8 (type 8), got type {}", at(2)));
  const size_t rank = at(3);
  if (rank < 1 || rank > 4) fail(subject, fmt::format("expected IDX of rank 1 to 4, got {}", rank));
  Header header;
  header.offset = 4 + 4 * rank;
  if (bytes.size() < header.offset) fail(subject, "truncated IDX header");
  for (size_t i = 0; i < rank; ++i) {
    const size_t p = 4 + 4 * i;
    header.shape.push_back((at(p) << 24) | (at(p + 1) << 16) | (at(p + 2) << 8) | at(p + 3));
  }
  const auto count = static_cast<uint64_t>(element_count(header.shape));
  if (count > kLimit)
    fail(subject, fmt::format("expected at most {} bytes, got IDX of shape {}", kLimit,
                              to_string(header.shape)));
  header.end = header.offset + static_cast<size_t>(count);
  return header;
}

Tensor read_idx(const fs::path& path) {
  const std::string subject = path.string();
  std::vector<std::byte> bytes = read_file(path, kLimit);
  const bool packed =
      bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
  Header header;
  if (packed) {
    if (bytes.size() > UINT32_MAX) fail(subject, "expected at most 4 GiB of gzip data");
    header = parse_header(Inflater(bytes).read(kLargestHeader, subject), subject);
    if (header.end > (bytes.size() + 1) * kDeflateRatio)
      fail(subject, "truncated: its header promises more than it can hold");
    bytes = Inflater(bytes).read(header.end + 1, subject);
  } else {
    header = parse_header(bytes, subject);
  }
  if (bytes.size() != header.end) {
    fail(subject, fmt::format("expected {} bytes for IDX of shape {}, got {}", header.end,
                              to_string(header.shape),
                              bytes.size() > header.end ? "more" : std::to_string(bytes.size())));
  }
  return Tensor::of<uint8_t>(
      header.shape,
      std::span<const uint8_t>(reinterpret_cast<const uint8_t*>(bytes.data()) + header.offset,
                               header.end - header.offset));
}

// "t10k-images-idx3-ubyte.gz" -> "t10k-labels-idx1-ubyte.gz", packed or not, if it is there.
fs::path labels_beside(const fs::path& path) {
  std::string name = path.filename().string();
  const std::string images = "images-idx3", labels = "labels-idx1";
  const size_t found = name.rfind(images);
  if (found == std::string::npos) return {};
  name.replace(found, images.size(), labels);
  std::string other = name.ends_with(".gz") ? name.substr(0, name.size() - 3) : name + ".gz";
  for (const std::string& candidate : {name, other}) {
    if (fs::is_regular_file(path.parent_path() / candidate)) return path.parent_path() / candidate;
  }
  return {};
}

std::vector<int64_t> read_idx_labels(const fs::path& path, int64_t count) {
  const Tensor tensor = read_idx(path);
  if (tensor.rank() != 1 || tensor.size() != count) {
    fail(path.string(), fmt::format("expected {} labels, one an image, got IDX of shape {}", count,
                                    to_string(tensor.shape())));
  }
  const std::span<const uint8_t> values = tensor.as<uint8_t>();
  return {values.begin(), values.end()};
}

}  // namespace

bool is_idx_name(const fs::path& path) {
  std::string name = path.filename().string();
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  const size_t found = name.rfind("idx");
  if (found == std::string::npos) return false;
  const std::string_view rest = std::string_view(name).substr(found + 3);
  return rest.empty() ||
         (rest.size() == 7 && rest[0] >= '1' && rest[0] <= '4' && rest.substr(1) == "-ubyte");
}

std::unique_ptr<Dataset> open_idx(const fs::path& path, const DatasetOptions& options) {
  auto images = std::make_shared<const Tensor>(read_idx(path));
  if (images->rank() != 3) {
    fail(path.string(),
         fmt::format("expected IDX images [N, H, W], got shape {}", to_string(images->shape())));
  }
  const int64_t count = images->shape()[0];
  std::vector<int64_t> labels;
  const fs::path file = options.labels.empty() ? labels_beside(path) : options.labels;
  if (!file.empty())
    labels = is_idx_name(file) ? read_idx_labels(file, count) : read_plain_labels(file, count);
  ArraySource source{images, static_cast<const std::byte*>(images->data()), DType::kU8,
                     images->shape()};
  return make_array_dataset(std::move(source), {}, std::move(labels), path, options);
}

}  // namespace repquant::data_detail
