#include "repquant/data/npy.h"

#include <algorithm>

#include <fmt/format.h>

#include "repquant/core/files.h"
#include "repquant/data/testing.h"
#include "repquant/data/testing_fixtures.h"

namespace repquant {
namespace {

using namespace testing;

std::vector<std::byte> npy(const std::string& dictionary, size_t data_bytes, int version = 1) {
  std::string text = "\x93NUMPY";
  text += static_cast<char>(version);
  text += '\0';
  text += static_cast<char>(dictionary.size() & 255);
  text += static_cast<char>(dictionary.size() >> 8);
  if (version > 1) text += std::string(2, '\0');
  return to_bytes(text + dictionary + std::string(data_bytes, 'x'));
}

TEST(Npy, ReadsAndWritesWhatNumpyWrites) {
  const std::vector<std::byte> bytes = from_hex(kNumpyFile);  // float32 [[1.5, -2], [3, 4]]
  const Tensor tensor = parse_npy(bytes, "x.npy");
  EXPECT_EQ(tensor.shape(), (Shape{2, 2}));
  EXPECT_EQ(tensor.as<float>()[1], -2.0f);
  const TempDir dir;
  write_npy(dir / "x.npy", tensor.view());
  EXPECT_EQ(read_file(dir / "x.npy"), bytes);
}

TEST(Npy, RoundTripOfShapesAndTypes) {
  const TempDir dir;
  for (const DType dtype :
       {DType::kF32, DType::kF64, DType::kF16, DType::kI8, DType::kU8, DType::kI16, DType::kU16,
        DType::kI32, DType::kU32, DType::kI64, DType::kU64, DType::kBool}) {
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{7}, Shape{2, 3}, Shape{1, 2, 1, 3}}) {
      Tensor tensor(dtype, shape);
      auto* data = static_cast<std::byte*>(tensor.data());
      for (size_t i = 0; i < tensor.bytes(); ++i)
        data[i] = static_cast<std::byte>(dtype == DType::kBool ? i & 1 : i * 11);
      write_npy(dir / "x.npy", std::as_const(tensor).view());
      const Tensor again = read_npy(dir / "x.npy");
      EXPECT_EQ(again.dtype(), dtype);
      EXPECT_EQ(again.shape(), shape);
      const auto* other = static_cast<const std::byte*>(again.data());
      EXPECT_TRUE(std::equal(data, data + tensor.bytes(), other, other + again.bytes()));
    }
  }
}

TEST(Npy, Versions) {
  const std::string dictionary = "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }\n";
  for (const int version : {1, 2, 3})
    EXPECT_EQ(parse_npy(npy(dictionary, 12, version), "v").shape(), (Shape{3}));
  expect_error(ErrorCode::kCorruptFile, "version", [&] { parse_npy(npy(dictionary, 12, 4), "v"); });
}

TEST(Npy, HostileHeaders) {
  const auto bad = [](ErrorCode code, const std::string& dictionary, const std::string& part) {
    expect_error(code, part, [&] { parse_npy(npy(dictionary, 8), "bad.npy"); });
  };
  const auto with = [](const std::string& type, const std::string& shape) {
    return fmt::format("{{'descr': {}, 'fortran_order': False, 'shape': {}}}", type, shape);
  };
  EXPECT_EQ(parse_npy(npy(with("'<f4'", "(2,)"), 8), "good").size(), 2);
  bad(ErrorCode::kUnsupported, with("'|O'", "(1,)"), "\"|O\"");
  bad(ErrorCode::kUnsupported, with("'>f4'", "(2,)"), "little-endian");
  bad(ErrorCode::kUnsupported, with("'<c8'", "(1,)"), "numbers");
  bad(ErrorCode::kUnsupported, with("[('a', '<f4')]", "(1,)"), "a structure");
  bad(ErrorCode::kUnsupported, "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2)}",
      "Fortran");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "(3,)"), "expected 3 elements");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "(1,)"), "expected 1 elements");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "(-2,)"), "size");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "(99999999999999999999,)"), "size");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "(4611686018427387904, 4611686018427387904)"), "");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "(4611686018427387904,)"),
      "expected 4611686018427387904 elements");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "(1,1,1,1,1,1,1,1,2)"), "dimensions");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "[2]"), "missing");
  bad(ErrorCode::kCorruptFile, "{'descr': '<f4', 'shape': (2,)}", "missing");
  bad(ErrorCode::kCorruptFile, with("'<f4'", "(2,)") + "x", "after");
  bad(ErrorCode::kCorruptFile, "{'pickle': 1}", "pickle");
  bad(ErrorCode::kCorruptFile, "", "missing");
  expect_error(ErrorCode::kCorruptFile, "something else",
               [] { parse_npy(to_bytes("hello hello"), "x"); });
}

TEST(Npy, EveryTruncationIsAnErrorAndFlippedBitsNeverCrash) {
  const std::vector<std::byte> bytes = from_hex(kNumpyFile);
  for (size_t n = 0; n < bytes.size(); ++n)
    EXPECT_THROW(parse_npy(std::span(bytes).first(n), "cut"), Error) << n;
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<std::byte> damaged = bytes;
      damaged[i] ^= static_cast<std::byte>(1 << bit);
      try {
        EXPECT_EQ(parse_npy(damaged, "damaged").bytes(), 16u);
      } catch (const Error&) {
      }
    }
  }
}

TEST(Npz, ReadsWhatNumpyWrites) {
  const TempDir dir;
  write_bytes(dir / "x.npz", from_hex(kNumpyArchive));
  const auto arrays = read_npz(dir / "x.npz");
  ASSERT_EQ(arrays.size(), 2u);
  EXPECT_EQ(arrays.at("images").shape(), (Shape{2, 1, 3, 4}));
  EXPECT_EQ(arrays.at("images").as<uint8_t>()[23], 23);
  EXPECT_EQ(arrays.at("labels").as<int64_t>()[0], 3);
  expect_error(ErrorCode::kResourceExhausted, "limit", [&] { read_npz(dir / "x.npz", 100); });
}

TEST(Npz, DamageIsAnErrorNotACrash) {
  const std::vector<std::byte> bytes = from_hex(kNumpyArchive);
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_THROW(parse_npz(std::span(bytes).first(n), "cut.npz"), Error) << n;
  }
  int errors = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::vector<std::byte> damaged = bytes;
    damaged[i] ^= std::byte{8};
    try {
      parse_npz(damaged, "damaged.npz");
    } catch (const Error&) {
      ++errors;
    }
  }
  EXPECT_GT(errors, 100);  // the checksum alone covers the packed data
}

}  // namespace
}  // namespace repquant
