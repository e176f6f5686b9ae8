#include "repquant/data/npy.h"

#include <charconv>
#include <cstring>
#include <optional>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/files.h"

namespace repquant {
namespace {

constexpr size_t kHeaderLimit = 64 * 1024;
constexpr size_t kRankLimit = 8;

struct TypeName {
  const char* name;  // without the byte order
  DType dtype;
};
constexpr TypeName kTypes[] = {{"f4", DType::kF32}, {"f8", DType::kF64}, {"f2", DType::kF16},
                               {"i1", DType::kI8},  {"u1", DType::kU8},  {"i2", DType::kI16},
                               {"u2", DType::kU16}, {"i4", DType::kI32}, {"u4", DType::kU32},
                               {"i8", DType::kI64}, {"u8", DType::kU64}, {"b1", DType::kBool}};

// The header is the text of a Python dictionary with three known keys.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& subject)
      : rest_(text), subject_(subject) {}

  NpyHeader read() {
    NpyHeader header;
    bool has_type = false, has_order = false, has_shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !has_type) {
        has_type = true;
        header.dtype = type();
      } else if (key == "fortran_order" && !has_order) {
        has_order = true;
        fortran_ = boolean();
      } else if (key == "shape" && !has_shape) {
        has_shape = true;
        header.shape = shape();
      } else {
        fail(fmt::format("unexpected key \"{}\"", key));
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip();
    if (!rest_.empty()) fail("text after the dictionary");
    if (!has_type || !has_order || !has_shape) fail("a key is missing");
    if (fortran_ && header.shape.size() > 1) {
      throw Error(
          ErrorCode::kUnsupported,
          fmt::format("data: \"{}\": expected an array in C order, got Fortran order", subject_),
          "save numpy.ascontiguousarray(x)");
    }
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("data: \"{}\": damaged .npy header ({})", subject_, what));
  }
  void skip() {
    const size_t found = rest_.find_first_not_of(" \t\n\r");
    rest_.remove_prefix(found == std::string_view::npos ? rest_.size() : found);
  }
  bool take(char c) {
    skip();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(fmt::format("\"{}\" is missing", c));
  }
  std::string quoted() {
    skip();
    const char quote = rest_.empty() ? ' ' : rest_[0];
    const size_t end =
        quote == '\'' || quote == '"' ? rest_.find(quote, 1) : std::string_view::npos;
    if (end == std::string_view::npos || end > 64) fail("a quoted word is missing");
    std::string word(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return word;
  }
  bool boolean() {
    skip();
    for (const auto& [text, value] :
         {std::pair<std::string_view, bool>{"True", true}, {"False", false}}) {
      if (!rest_.starts_with(text)) continue;
      rest_.remove_prefix(text.size());
      return value;
    }
    fail("expected True or False");
  }
  DType type() {
    skip();
    const std::string text = rest_.starts_with('[') ? "a structure" : quoted();
    const bool one_byte = text.ends_with('1');
    if (text.size() == 3 &&
        (text[0] == '<' || text[0] == '=' || (one_byte && (text[0] == '|' || text[0] == '>')))) {
      for (const TypeName& row : kTypes) {
        if (text.substr(1) == row.name) return row.dtype;
      }
    }
    throw Error(
        ErrorCode::kUnsupported,
        fmt::format("data: \"{}\": expected a little-endian array of numbers, got type \"{}\"",
                    subject_, text),
        text.find('O') != std::string::npos ? "object arrays are pickles and are never opened"
                                            : "");
  }
  Shape shape() {
    Shape dims;
    expect('(');
    while (!take(')')) {
      skip();
      int64_t value = 0;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
      if (error != std::errc{} || value < 0) fail("a size is not a number of 0 or more");
      rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
      dims.push_back(value);
      if (dims.size() > kRankLimit) fail(fmt::format("more than {} dimensions", kRankLimit));
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return dims;
  }

  std::string_view rest_;
  const std::string& subject_;
  bool fortran_ = false;
};

std::string type_text(DType dtype) {
  for (const TypeName& row : kTypes) {
    if (row.dtype == dtype) return fmt::format("{}{}", size_of(dtype) == 1 ? '|' : '<', row.name);
  }
  throw Error(ErrorCode::kUnsupported, fmt::format("data: .npy cannot hold {}", name_of(dtype)));
}

}  // namespace

NpyHeader parse_npy_header(std::span<const std::byte> bytes, const std::string& subject) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kCorruptFile, fmt::format("data: \"{}\": {}", subject, what));
  };
  constexpr std::string_view kMagic = "\x93NUMPY";
  if (bytes.size() < 10 || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    fail("expected an .npy array, got something else");
  }
  const auto at = [&](size_t i) { return std::to_integer<uint32_t>(bytes[i]); };
  const uint32_t version = at(6);
  if (version < 1 || version > 3)
    fail(fmt::format("expected .npy format version 1 to 3, got {}", version));
  const size_t start = version == 1 ? 10 : 12;
  if (bytes.size() < start) fail("truncated .npy header");
  const size_t length =
      version == 1 ? at(8) | (at(9) << 8) : at(8) | (at(9) << 8) | (at(10) << 16) | (at(11) << 24);
  if (length > kHeaderLimit)
    fail(fmt::format("expected an .npy header of at most {} bytes, got {}", kHeaderLimit, length));
  if (length > bytes.size() - start) fail("truncated .npy header");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + start, length);
  NpyHeader header = HeaderReader(text, subject).read();
  header.data_offset = start + length;
  const auto count = static_cast<uint64_t>(element_count(header.shape));
  const uint64_t rest = bytes.size() - header.data_offset, size = size_of(header.dtype);
  if (count > rest / size || count * size != rest) {
    fail(fmt::format("expected {} elements of {} bytes for shape {}, got {} bytes", count, size,
                     to_string(header.shape), rest));
  }
  return header;
}

std::string numpy_name(DType dtype) {
  if (dtype == DType::kBool) return "bool";
  if (dtype == DType::kBF16) return "bfloat16";
  const std::string_view name = name_of(dtype);  // "F32"
  const char* kind = name[0] == 'F' ? "float" : name[0] == 'U' ? "uint" : "int";
  return fmt::format("{}{}", kind, name.substr(1));
}

Tensor parse_npy(std::span<const std::byte> bytes, const std::string& subject) {
  const NpyHeader header = parse_npy_header(bytes, subject);
  Tensor tensor(header.dtype, header.shape);
  if (tensor.bytes() > 0)
    std::memcpy(tensor.data(), bytes.data() + header.data_offset, tensor.bytes());
  return tensor;
}

Tensor read_npy(const std::filesystem::path& path) {
  return parse_npy(read_file(path), path.string());
}

void write_npy(const std::filesystem::path& path, const ConstTensorView& tensor) {
  std::string shape;
  for (const int64_t size : tensor.shape) shape += fmt::format("{}, ", size);
  if (tensor.shape.size() > 1) shape.resize(shape.size() - 2);
  if (tensor.shape.size() == 1) shape.resize(shape.size() - 1);
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
                                 type_text(tensor.dtype), shape);
  constexpr size_t kPrefix = 10, kAlignment = 64;
  while ((kPrefix + text.size() + 1) % kAlignment != 0) text += ' ';
  text += '\n';
  std::string head = "\x93NUMPY";
  head +=
      {'\x01', '\x00', static_cast<char>(text.size() & 255), static_cast<char>(text.size() >> 8)};
  AtomicFile file(path);
  file.write(head + text);
  const size_t bytes = static_cast<size_t>(tensor.size()) * size_of(tensor.dtype);
  file.write(std::span<const std::byte>(static_cast<const std::byte*>(tensor.data), bytes));
  file.commit();
}

}  // namespace repquant
