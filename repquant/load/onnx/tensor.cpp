#include "repquant/load/onnx/tensor.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include <fmt/format.h>

namespace repquant::load {
namespace {

constexpr int kMaxRank = 32;

struct Stored {          // how elements lie in raw bytes
  int bits;              // an element
  DType widened;
};

std::optional<Stored> stored_form(int type) {
  switch (type) {
    case kFloat: return Stored{32, DType::kF32};
    case kDouble: return Stored{64, DType::kF64};
    case kUint8: return Stored{8, DType::kU8};
    case kInt8: return Stored{8, DType::kI8};
    case kUint16: return Stored{16, DType::kU16};
    case kInt16: return Stored{16, DType::kI16};
    case kUint32: return Stored{32, DType::kU32};
    case kInt32: return Stored{32, DType::kI32};
    case kUint64: return Stored{64, DType::kU64};
    case kInt64: return Stored{64, DType::kI64};
    case kBool: return Stored{8, DType::kBool};
    case kFloat16: case kBfloat16: return Stored{16, DType::kF32};
    case kFloat8E4M3Fn: case kFloat8E4M3Fnuz: case kFloat8E5M2: case kFloat8E5M2Fnuz:
      return Stored{8, DType::kF32};
    case kUint4: return Stored{4, DType::kU8};
    case kInt4: return Stored{4, DType::kI8};
    default: return std::nullopt;
  }
}

std::string type_text(int type) {
  if (type == kString) return "strings";
  if (type == kComplex64 || type == kComplex128) return "complex numbers";
  return fmt::format("element type {}", type);
}

int64_t raw_bytes(int64_t elements, int bits) {
  return bits == 4 ? elements / 2 + elements % 2 : elements * (bits / 8);
}

// One raw element field, little endian, into the widened tensor.
void decode_raw(std::string_view raw, int type, Tensor& out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(raw.data());
  const auto count = static_cast<size_t>(out.size());
  const auto half_at = [&](size_t i) {
    return static_cast<uint16_t>(bytes[2 * i] | bytes[2 * i + 1] << 8);
  };
  const auto nibble_at = [&](size_t i) { return (bytes[i / 2] >> (i % 2 * 4)) & 15; };
  switch (type) {
    case kFloat16:
      for (size_t i = 0; i < count; ++i) out.as<float>()[i] = half_to_float(half_at(i));
      return;
    case kBfloat16:
      for (size_t i = 0; i < count; ++i) {
        const uint32_t wide = static_cast<uint32_t>(half_at(i)) << 16;
        std::memcpy(&out.as<float>()[i], &wide, sizeof wide);
      }
      return;
    case kFloat8E4M3Fn: case kFloat8E4M3Fnuz: case kFloat8E5M2: case kFloat8E5M2Fnuz:
      for (size_t i = 0; i < count; ++i) out.as<float>()[i] = float8_to_float(bytes[i], type);
      return;
    case kUint4:
      for (size_t i = 0; i < count; ++i) out.as<uint8_t>()[i] = static_cast<uint8_t>(nibble_at(i));
      return;
    case kInt4:
      for (size_t i = 0; i < count; ++i) {
        const int nibble = nibble_at(i);
        out.as<int8_t>()[i] = static_cast<int8_t>(nibble >= 8 ? nibble - 16 : nibble);
      }
      return;
    case kBool:   // any byte but 0 and 1 would be undefined as a bool
      for (size_t i = 0; i < count; ++i) out.as<bool>()[i] = bytes[i] != 0;
      return;
    default:
      if (!raw.empty()) std::memcpy(out.data(), raw.data(), raw.size());
  }
}

// A typed field (int32_data, ...), narrowed to the raw form so that one decoder serves both.
template <class Narrow, class Field>
std::string narrowed(const Field& field, const std::string& subject) {
  std::string raw;
  raw.resize(static_cast<size_t>(field.size()) * sizeof(Narrow));
  for (int i = 0; i < field.size(); ++i) {
    const auto value = static_cast<Narrow>(field.Get(i));
    if (static_cast<std::decay_t<decltype(field.Get(i))>>(value) != field.Get(i)) {
      corrupt(fmt::format("{}: element {}: expected a value of its type, got {}", subject, i,
                          field.Get(i)));
    }
    std::memcpy(raw.data() + static_cast<size_t>(i) * sizeof(Narrow), &value, sizeof value);
  }
  return raw;
}

template <class Field> std::string field_bytes(const Field& field) {
  const size_t bytes = static_cast<size_t>(field.size()) * sizeof(*field.data());
  return field.empty() ? std::string()
                       : std::string(reinterpret_cast<const char*>(field.data()), bytes);
}

std::string typed_bytes(const onnx::TensorProto& proto, int type, const std::string& subject) {
  const auto& ints = proto.int32_data();
  switch (type) {
    case kFloat: return field_bytes(proto.float_data());
    case kDouble: return field_bytes(proto.double_data());
    case kInt64: return field_bytes(proto.int64_data());
    case kUint64: return field_bytes(proto.uint64_data());
    case kUint32: return narrowed<uint32_t>(proto.uint64_data(), subject);
    case kInt32: return field_bytes(ints);
    case kInt16: return narrowed<int16_t>(ints, subject);
    case kInt8: return narrowed<int8_t>(ints, subject);
    case kUint16: case kFloat16: case kBfloat16: return narrowed<uint16_t>(ints, subject);
    default: return narrowed<uint8_t>(ints, subject);
  }
}

template <class T> bool has_nan(const Tensor& tensor) {
  for (const T v : tensor.as<T>()) {
    if (std::isnan(v)) return true;
  }
  return false;
}

void check_finite(const Tensor& tensor, const std::string& subject) {
  const bool nan = tensor.dtype() == DType::kF32   ? has_nan<float>(tensor)
                   : tensor.dtype() == DType::kF64 ? has_nan<double>(tensor)
                                                   : false;
  if (nan)
    corrupt(subject + ": expected numbers, got NaN among them",
            "the weights are damaged; export the model again");
}

Shape checked_shape(const onnx::TensorProto& proto, const std::string& subject) {
  if (proto.dims_size() > kMaxRank) {
    corrupt(fmt::format("{}: expected at most {} dimensions, got {}", subject, kMaxRank,
                        proto.dims_size()));
  }
  Shape shape(proto.dims().begin(), proto.dims().end());
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) {
      corrupt(subject + ": expected a shape that fits into 64 bits, got " +
              to_string(std::span<const int64_t>(shape)));
    }
  }
  // Bits of the widest element must not overflow either.
  if (count > std::numeric_limits<int64_t>::max() / 64) {
    corrupt(subject + ": expected a tensor that fits into memory, got " +
            to_string(std::span<const int64_t>(shape)));
  }
  return shape;
}

uint64_t external_number(const std::string& text, const char* key, const std::string& subject) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    corrupt(fmt::format("{}: external {}: expected a number of bytes, got {}", subject, key,
                        in_quotes(text)));
  }
  return value;
}

}  // namespace

DType graph_type(int onnx_type, const std::string& subject) {
  const auto form = stored_form(onnx_type);
  if (!form) {
    unsupported(
        fmt::format("{}: expected numbers or booleans, got {}", subject, type_text(onnx_type)),
        "supported: float, double, float16, bfloat16, float8, bool and integers of 4 to 64 bits");
  }
  return form->widened;
}

float float8_to_float(uint8_t bits, int onnx_type) {
  const bool e4m3 = onnx_type == kFloat8E4M3Fn || onnx_type == kFloat8E4M3Fnuz;
  const bool unsigned_zero = onnx_type == kFloat8E4M3Fnuz || onnx_type == kFloat8E5M2Fnuz;
  const int mantissa_bits = e4m3 ? 3 : 2;
  const int bias = (e4m3 ? 7 : 15) + (unsigned_zero ? 1 : 0);
  const int exponent = (bits & 0x7f) >> mantissa_bits;
  const int fraction = bits & ((1 << mantissa_bits) - 1);
  if (unsigned_zero && bits == 0x80) return std::nanf("");
  if (onnx_type == kFloat8E4M3Fn && (bits & 0x7f) == 0x7f) return std::nanf("");
  float magnitude;
  if (onnx_type == kFloat8E5M2 && exponent == 31) {
    magnitude = fraction ? std::nanf("") : std::numeric_limits<float>::infinity();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(fraction), 1 - bias - mantissa_bits);
  } else {
    magnitude = std::ldexp(static_cast<float>(fraction + (1 << mantissa_bits)),
                           exponent - bias - mantissa_bits);
  }
  return bits & 0x80 ? -magnitude : magnitude;
}

void TensorReader::charge(uint64_t bytes, const std::string& subject) {
  if (bytes > limits_.tensor_bytes - spent_) {
    throw Error(
        ErrorCode::kResourceExhausted,
        fmt::format("load onnx: {}: expected at most {} bytes of constants in all, got more",
                    subject, limits_.tensor_bytes));
  }
  spent_ += bytes;
}

const MappedFile& TensorReader::open(const std::string& location, const std::string& subject) {
  if (const auto it = files_.find(location); it != files_.end()) return it->second;
  namespace fs = std::filesystem;
  if (base_.empty()) unsupported(subject + ": expected data inside the file, got external data");
  const fs::path relative(location);
  const auto refuse = [&] {
    corrupt(fmt::format("{}: external data: expected a file inside the model's folder, got {}",
                        subject, in_quotes(location)));
  };
  if (location.empty() || location.find('\0') != std::string::npos || relative.is_absolute())
    refuse();
  std::error_code error;
  const fs::path folder = fs::canonical(base_, error);
  if (error)
    throw Error(ErrorCode::kNotFound,
                "load onnx: folder " + in_quotes(base_.string()) + " not found");
  const fs::path resolved = fs::weakly_canonical(folder / relative, error);
  if (error) refuse();
  // After links are resolved every component of the folder must still lead the path.
  const auto mismatch =
      std::mismatch(folder.begin(), folder.end(), resolved.begin(), resolved.end());
  if (mismatch.first != folder.end() || mismatch.second == resolved.end()) refuse();
  if (!fs::is_regular_file(resolved, error)) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("load onnx: {}: external data: expected a file {}, got none", subject,
                            in_quotes(location)),
                "external data files must lie beside the model");
  }
  return files_.emplace(location, MappedFile(resolved)).first->second;
}

std::string_view TensorReader::external(const onnx::TensorProto& proto,
                                        const std::string& subject) {
  std::string location;
  uint64_t offset = 0;
  std::optional<uint64_t> length;
  for (const auto& entry : proto.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") offset = external_number(entry.value(), "offset", subject);
    if (entry.key() == "length") length = external_number(entry.value(), "length", subject);
  }
  const auto bytes = open(location, subject).bytes();
  if (offset > bytes.size() || length.value_or(0) > bytes.size() - offset) {
    corrupt(fmt::format(
        "{}: external data: expected bytes inside {} ({} bytes), got offset {} length {}", subject,
        in_quotes(location), bytes.size(), offset, length.value_or(0)));
  }
  return {reinterpret_cast<const char*>(bytes.data()) + offset,
          length.value_or(bytes.size() - offset)};
}

Tensor TensorReader::read(const onnx::TensorProto& proto, const std::string& subject,
                          bool refuse_nan) {
  const DType dtype = graph_type(proto.data_type(), subject);
  const Stored form = *stored_form(proto.data_type());
  Shape shape = checked_shape(proto, subject);
  const int64_t count = element_count(shape);
  if (proto.has_segment()) unsupported(subject + ": expected a whole tensor, got a segment");
  std::string typed;
  std::string_view raw;
  const int64_t expected = raw_bytes(count, form.bits);
  if (proto.data_location() == onnx::TensorProto::EXTERNAL) {
    raw = external(proto, subject);
    bool has_length = false;
    for (const auto& entry : proto.external_data()) has_length |= entry.key() == "length";
    if (!has_length) raw = raw.substr(0, static_cast<size_t>(expected));
  } else if (proto.has_raw_data()) {
    raw = proto.raw_data();
  } else {
    typed = typed_bytes(proto, proto.data_type(), subject);
    raw = typed;
  }
  if (raw.size() != static_cast<size_t>(expected)) {
    corrupt(fmt::format("{}: expected {} bytes for shape {}, got {}", subject, expected,
                        to_string(std::span<const int64_t>(shape)), raw.size()));
  }
  charge(static_cast<uint64_t>(count) * size_of(dtype), subject);
  Tensor tensor(dtype, std::move(shape));
  decode_raw(raw, proto.data_type(), tensor);
  if (refuse_nan) check_finite(tensor, subject);
  return tensor;
}

}  // namespace repquant::load
