#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <zip.h>

#include "repquant/core/error.h"
#include "repquant/core/files.h"
#include "repquant/data/npy.h"

namespace repquant {
namespace {

struct Closer {
  void operator()(zip_t* archive) const { zip_discard(archive); }
  void operator()(zip_file_t* file) const { zip_fclose(file); }
};
using Archive = std::unique_ptr<zip_t, Closer>;
using Member = std::unique_ptr<zip_file_t, Closer>;

[[noreturn]] void fail(const std::string& subject, const std::string& what) {
  throw Error(ErrorCode::kCorruptFile, fmt::format("data: \"{}\": {}", subject, what));
}

Archive open_archive(std::span<const std::byte> bytes, const std::string& subject) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
  zip_t* archive = source == nullptr
                       ? nullptr
                       : zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error);
  if (archive == nullptr) {
    if (source != nullptr) zip_source_free(source);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    fail(subject, fmt::format("expected an .npz archive ({})", reason));
  }
  zip_error_fini(&error);
  return Archive(archive);
}

// Grows as bytes arrive, so a size that lies costs nothing; the checksum is checked at the end.
std::vector<std::byte> read_member(zip_t* archive, zip_uint64_t index, uint64_t limit,
                                   const std::string& subject) {
  const Member member(zip_fopen_index(archive, index, 0));
  if (member == nullptr)
    fail(subject, fmt::format("cannot be unpacked ({})", zip_strerror(archive)));
  std::vector<std::byte> bytes;
  while (true) {
    constexpr size_t kChunk = 1 << 20;
    const size_t begin = bytes.size();
    bytes.resize(begin + kChunk);
    const zip_int64_t count = zip_fread(member.get(), bytes.data() + begin, kChunk);
    if (count < 0) fail(subject, fmt::format("damaged ({})", zip_file_strerror(member.get())));
    bytes.resize(begin + static_cast<size_t>(count));
    if (bytes.size() > limit) {
      throw Error(ErrorCode::kResourceExhausted,
                  fmt::format("data: \"{}\": unpacks to more than the limit", subject));
    }
    if (count == 0) return bytes;
  }
}

}  // namespace

std::map<std::string, Tensor> read_npz(const std::filesystem::path& path, uint64_t limit) {
  return parse_npz(read_file(path), path.string(), limit);
}

std::map<std::string, Tensor> parse_npz(std::span<const std::byte> bytes, const std::string& path,
                                        uint64_t limit) {
  constexpr zip_int64_t kMembers = 100'000;
  if (bytes.empty())
    fail(path, "expected an .npz archive, got an empty file");  // libzip would take it
  const Archive archive = open_archive(bytes, path);
  const zip_int64_t count = zip_get_num_entries(archive.get(), 0);
  if (count > kMembers)
    fail(path, fmt::format("expected at most {} arrays, got {}", kMembers, count));
  std::map<std::string, Tensor> arrays;
  uint64_t left = limit;
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* raw = zip_get_name(archive.get(), static_cast<zip_uint64_t>(i), ZIP_FL_ENC_RAW);
    std::string name = raw == nullptr ? "" : raw;
    if (!name.ends_with(".npy")) continue;
    name.resize(name.size() - 4);
    const std::string subject = fmt::format("{}[{}]", path, name);
    const std::vector<std::byte> member =
        read_member(archive.get(), static_cast<zip_uint64_t>(i), left, subject);
    left -= member.size();
    if (!arrays.emplace(name, parse_npy(member, subject)).second)
      fail(subject, "the archive holds it twice");
  }
  return arrays;
}

}  // namespace repquant
