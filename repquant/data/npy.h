#pragma once
// NumPy's .npy (format versions 1 to 3) and .npz. Hostile-safe: sizes are checked against the bytes
// that are there before anything is allocated; object arrays (pickle) are refused. Types: f2 f4 f8,
// i1 to i8, u1 to u8, b1, little endian, C order. Errors: kCorruptFile, kUnsupported, naming
// `subject`.
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "repquant/core/tensor.h"

namespace repquant {

struct NpyHeader {
  DType dtype = DType::kF32;
  Shape shape;
  size_t data_offset = 0;  // of the first element; shape and dtype fill the rest exactly
};
NpyHeader parse_npy_header(std::span<const std::byte> bytes, const std::string& subject);
std::string numpy_name(DType dtype);  // "float32", "bool"
Tensor parse_npy(std::span<const std::byte> bytes, const std::string& subject);
Tensor read_npy(const std::filesystem::path& path);
// Atomic; format version 1.
void write_npy(const std::filesystem::path& path, const ConstTensorView& tensor);

// Name (without ".npy") -> array. Members that are not .npy are ignored. At most `limit` bytes
// unpacked in all (kResourceExhausted above).
std::map<std::string, Tensor> read_npz(const std::filesystem::path& path,
                                       uint64_t limit = 4ull << 30);
std::map<std::string, Tensor> parse_npz(std::span<const std::byte> bytes,
                                        const std::string& subject, uint64_t limit = 4ull << 30);

}  // namespace repquant
