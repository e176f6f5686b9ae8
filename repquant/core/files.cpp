#include "repquant/core/files.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <utility>

#include <fmt/format.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

// The kind of failure a caller can act on: a missing path, a full disk, or anything else.
[[noreturn]] void fail(const char* action, const std::filesystem::path& path, int error,
                       ErrorCode other) {
  ErrorCode code = other;
  std::string hint;
  if (error == ENOENT || error == ENOTDIR) code = ErrorCode::kNotFound;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG || error == ENOMEM || error == EMFILE) {
    code = ErrorCode::kResourceExhausted;
    hint = "free some space or write elsewhere";
  }
  throw Error(code, fmt::format("{}: \"{}\": {}", action, path.string(), std::strerror(error)),
              hint);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

uint64_t regular_file_size(const Descriptor& file, const std::filesystem::path& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail("read", path, errno, ErrorCode::kCorruptFile);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("read: \"{}\": expected a regular file", path.string()));
  }
  return static_cast<uint64_t>(status.st_size);
}

// A device such as /dev/stdin is opened without blocking and then refused by its type.
int open_to_read(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail("read", path, errno, ErrorCode::kCorruptFile);
  return fd;
}

std::array<std::array<uint32_t, 256>, 8> make_crc_tables() {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    tables[0][i] = crc;
  }
  for (size_t t = 1; t < 8; ++t) {
    for (size_t i = 0; i < 256; ++i) {
      tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 255u];
    }
  }
  return tables;
}

}  // namespace

std::vector<std::byte> read_file(const std::filesystem::path& path, uint64_t limit) {
  const Descriptor file(open_to_read(path));
  const uint64_t size = regular_file_size(file, path);
  if (size > limit) {
    throw Error(
        ErrorCode::kCorruptFile,
        fmt::format("read: \"{}\": expected at most {} bytes, got {}", path.string(), limit, size));
  }
  std::vector<std::byte> bytes(size);
  uint64_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(file.get(), bytes.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read", path, errno, ErrorCode::kCorruptFile);
    if (got == 0) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("read: \"{}\": the file shrank while it was read", path.string()));
    }
    done += static_cast<uint64_t>(got);
  }
  return bytes;
}

// ---- MappedFile ---------------------------------------------------------------------------------
MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file(open_to_read(path));
  size_ = regular_file_size(file, path);
  if (size_ == 0) return;
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) fail("map", path, errno, ErrorCode::kResourceExhausted);
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

// ---- AtomicFile ---------------------------------------------------------------------------------
AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  if (std::filesystem::is_directory(path_)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("write: \"{}\": expected a file name, got a folder", path_.string()));
  }
  // A rename would replace a device or pipe by a file.
  std::error_code absent;
  if (const auto status = std::filesystem::status(path_, absent);
      std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("write: \"{}\": expected a regular file", path_.string()));
  }
  for (int attempt = 0; fd_ < 0; ++attempt) {
    std::filesystem::path name = path_;
    name += fmt::format(".{}.{}.tmp", ::getpid(), attempt);
    fd_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) temporary_ = std::move(name);
    else if (errno != EEXIST || attempt > 1000)
      fail("write", path_, errno, ErrorCode::kInvalidArgument);
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  REPQUANT_CHECK(fd_ >= 0);
  while (!bytes.empty()) {
    const ssize_t done = ::write(fd_, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("write", path_, errno, ErrorCode::kInvalidArgument);
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
}

void AtomicFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text.data(), text.size())));
}

void AtomicFile::sync() {
  REPQUANT_CHECK(fd_ >= 0);
  if (::fsync(fd_) != 0) fail("write", path_, errno, ErrorCode::kInvalidArgument);
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0) fail("write", path_, errno, ErrorCode::kInvalidArgument);
}

void AtomicFile::commit() {
  REPQUANT_CHECK(!temporary_.empty());
  if (fd_ >= 0) sync();
  rename_file(temporary_, path_);
  temporary_.clear();
}

void rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    fail("write", to, errno, ErrorCode::kInvalidArgument);
  // The rename itself must survive a power cut. Some file systems refuse to sync a folder: no loss.
  const std::filesystem::path parent = to.has_parent_path() ? to.parent_path() : ".";
  const Descriptor folder(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() >= 0) (void)::fsync(folder.get());
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

// ---- digests ------------------------------------------------------------------------------------
Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  if (context_ == nullptr ||
      EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) != 1) {
    EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_));
    throw Error(ErrorCode::kInternal, "digest: sha-256 is not available");
  }
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  REPQUANT_CHECK(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size()) ==
                 1);
  return *this;
}

Sha256& Sha256::update(std::string_view text) {
  return update(std::as_bytes(std::span(text.data(), text.size())));
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  REPQUANT_CHECK(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), &size) == 1);
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) { return Sha256().update(bytes).hex(); }

// Eight bytes a step (slicing by 8): checking a 6 MB artifact must not show in the start-up time.
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed) {
  static const std::array<std::array<uint32_t, 256>, 8> tables = make_crc_tables();
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(bytes[i]); };
  uint32_t crc = ~seed;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    crc ^= byte(i) | byte(i + 1) << 8 | byte(i + 2) << 16 | byte(i + 3) << 24;
    crc = tables[7][crc & 255] ^ tables[6][crc >> 8 & 255] ^ tables[5][crc >> 16 & 255] ^
          tables[4][crc >> 24] ^ tables[3][byte(i + 4)] ^ tables[2][byte(i + 5)] ^
          tables[1][byte(i + 6)] ^ tables[0][byte(i + 7)];
  }
  for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ tables[0][(crc ^ byte(i)) & 255];
  return ~crc;
}

}  // namespace repquant
