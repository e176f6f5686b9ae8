#include "repquant/core/files.h"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "repquant/core/error.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "repquant_files_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string text(const fs::path& path) const {
    const std::vector<std::byte> bytes = read_file(path);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  size_t entries() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
};

ErrorCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.code();
  }
  ADD_FAILURE() << "expected an error";
  return ErrorCode::kInternal;
}

TEST_F(Files, WriteReadAndMap) {
  const fs::path path = folder_ / "a.txt";
  write_file_atomically(path, "hello");
  EXPECT_EQ(text(path), "hello");
  const MappedFile mapped(path);
  EXPECT_EQ(mapped.bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(mapped.bytes()[4]), 'o');
  write_file_atomically(path, "");
  EXPECT_EQ(text(path), "");
  EXPECT_TRUE(MappedFile(path).bytes().empty());
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, MappedFileMoves) {
  write_file_atomically(folder_ / "a", "abc");
  MappedFile first(folder_ / "a");
  MappedFile second(std::move(first));
  EXPECT_EQ(second.bytes().size(), 3u);
  write_file_atomically(folder_ / "b", "de");
  second = MappedFile(folder_ / "b");
  EXPECT_EQ(second.bytes().size(), 2u);
}

TEST_F(Files, WithoutCommitNothingChanges) {
  const fs::path path = folder_ / "a";
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
    EXPECT_EQ(text(path), "old");
    EXPECT_EQ(entries(), 2u);
  }
  EXPECT_EQ(text(path), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, TwoWritersOfOneFileDoNotMix) {
  const fs::path path = folder_ / "a";
  AtomicFile one(path), two(path);
  one.write("one");
  two.write("second");
  one.commit();
  EXPECT_EQ(text(path), "one");
  two.commit();
  EXPECT_EQ(text(path), "second");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, BadPathsHaveTheirCodes) {
  EXPECT_EQ(code_of([&] { read_file(folder_ / "none"); }), ErrorCode::kNotFound);
  EXPECT_EQ(code_of([&] { MappedFile mapped(folder_ / "none"); }), ErrorCode::kNotFound);
  EXPECT_EQ(code_of([&] { read_file(folder_); }), ErrorCode::kCorruptFile);
  EXPECT_EQ(code_of([&] { MappedFile mapped(folder_); }), ErrorCode::kCorruptFile);
  EXPECT_EQ(code_of([] { read_file("/dev/zero"); }), ErrorCode::kCorruptFile);
  EXPECT_EQ(code_of([&] { write_file_atomically(folder_, "x"); }), ErrorCode::kInvalidArgument);
  fs::create_symlink("/dev/null", folder_ / "device");
  EXPECT_EQ(code_of([&] { write_file_atomically(folder_ / "device", "x"); }),
            ErrorCode::kInvalidArgument);
  EXPECT_TRUE(fs::is_character_file(folder_ / "device"));
  fs::remove(folder_ / "device");
  EXPECT_EQ(code_of([&] { write_file_atomically(folder_ / "none" / "a", "x"); }),
            ErrorCode::kNotFound);
  write_file_atomically(folder_ / "a", "12345");
  EXPECT_EQ(code_of([&] { read_file(folder_ / "a", 4); }), ErrorCode::kCorruptFile);
  try {
    read_file(folder_ / "none");
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("none"), std::string::npos);
  }
}

TEST_F(Files, AFolderThatCannotBeWrittenIsRefused) {
  // The super-user passes permission bits, but nobody creates files below /proc.
  EXPECT_NE(code_of([] { write_file_atomically("/proc/self/repquant", "x"); }),
            ErrorCode::kInternal);
  if (::geteuid() == 0) return;
  fs::permissions(folder_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_EQ(code_of([&] { write_file_atomically(folder_ / "a", "x"); }),
            ErrorCode::kInvalidArgument);
  fs::permissions(folder_, fs::perms::owner_all);
}

// A file size limit stands in for a full disk: both fail in the middle of write().
TEST_F(Files, AFullDiskLeavesTheOldFile) {
  const fs::path path = folder_ / "a";
  write_file_atomically(path, "old");
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file_atomically(path, std::string(100'000, 'x'));
    } catch (const Error& e) {
      ::_exit(e.code() == ErrorCode::kResourceExhausted && !e.hint().empty() ? 42 : 1);
    }
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_EQ(text(path), "old");
  EXPECT_EQ(entries(), 1u);
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST(Digests, KnownValues) {
  EXPECT_EQ(sha256_hex(bytes_of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256().update("a").update("bc").hex(), sha256_hex(bytes_of("abc")));
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xE3069283u);  // the check value of CRC-32C
  EXPECT_EQ(crc32c({}), 0u);
}

TEST(Digests, CrcContinuesFromASeed) {
  const std::string text(1000, 'q');
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{500}, size_t{1000}}) {
    const uint32_t first = crc32c(bytes_of(text).first(cut));
    EXPECT_EQ(crc32c(bytes_of(text).subspan(cut), first), crc32c(bytes_of(text)));
  }
}

}  // namespace
}  // namespace repquant
