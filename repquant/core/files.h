#pragma once
// Files: read whole, map read-only, write atomically; digests.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace repquant {

// Throws kNotFound, kCorruptFile (unreadable, a directory) or kResourceExhausted, naming the path.
std::vector<std::byte> read_file(const std::filesystem::path& path, uint64_t limit = UINT64_MAX);

class MappedFile {  // read-only, whole file
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Writes to a temporary name in the same folder; commit() syncs and renames, the destructor removes
// what was not committed. A full disk or read-only folder throws kResourceExhausted /
// kInvalidArgument naming the path; the old file is untouched.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void sync();    // complete on disk, under the temporary name
  void commit();  // sync(), then the name
  const std::filesystem::path& temporary() const {
    return temporary_;
  }  // to read back before commit

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

// Within one folder; replaces `to` and survives a power cut.
void rename_file(const std::filesystem::path& from, const std::filesystem::path& to);
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

class Sha256 {  // incremental
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  std::string hex();  // finishes

 private:
  void* context_;
};
std::string sha256_hex(std::span<const std::byte> bytes);
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed = 0);

}  // namespace repquant
