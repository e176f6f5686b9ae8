// The safetensors container: u64 header length, JSON header, data.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "repquant/core/artifact.h"
#include "repquant/core/files.h"
#include "repquant/core/strict_json.h"

namespace repquant {
namespace {

using nlohmann::json;

constexpr size_t kPrefix = 8;       // the header length
constexpr size_t kAlignment = 64;

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kF16, DType::kBF16, DType::kI8,
                             DType::kU8,  DType::kI16, DType::kU16, DType::kI32,  DType::kU32,
                             DType::kI64, DType::kU64, DType::kBool};

struct Entry {
  std::string name;
  DType dtype = DType::kU8;
  Shape shape;
  uint64_t begin = 0, end = 0;
};

[[noreturn]] void corrupt(const std::string& subject, const std::string& what) {
  throw Error(ErrorCode::kCorruptFile, fmt::format("safetensors: {}: {}", subject, what));
}

DType dtype_of(const json& value, const std::string& subject) {
  if (!value.is_string()) corrupt(subject, "expected a dtype");
  const std::string& text = value.get_ref<const std::string&>();
  for (const DType dtype : kDTypes) {
    if (name_of(dtype) == text) return dtype;
  }
  throw Error(ErrorCode::kUnsupported,
              fmt::format("safetensors: {}: unknown dtype \"{}\"", subject, printable(text)));
}

uint64_t size_at(const json& value, const std::string& subject) {
  if (!value.is_number_unsigned()) corrupt(subject, "expected sizes and offsets >= 0");
  return value.get<uint64_t>();
}

Entry read_entry(const std::string& name, const json& value, const std::string& file) {
  const std::string subject = fmt::format("{}: tensor \"{}\"", file, printable(name));
  const bool complete = value.is_object() && value.size() == 3 && value.contains("dtype") &&
                        value.contains("shape") && value.contains("data_offsets");
  if (!complete) corrupt(subject, "expected dtype, shape and data_offsets");
  Entry entry;
  entry.name = name;
  entry.dtype = dtype_of(value["dtype"], subject);
  const json& shape = value["shape"];
  if (!shape.is_array() || shape.size() > 8) corrupt(subject, "expected a shape of rank at most 8");
  for (const json& d : shape) entry.shape.push_back(static_cast<int64_t>(size_at(d, subject)));
  const json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) corrupt(subject, "expected two data_offsets");
  entry.begin = size_at(offsets[0], subject);
  entry.end = size_at(offsets[1], subject);
  int64_t bytes = 0;
  if (__builtin_mul_overflow(element_count(entry.shape), static_cast<int64_t>(size_of(entry.dtype)),
                             &bytes)) {
    corrupt(subject, fmt::format("shape {} overflows", to_string(entry.shape)));
  }
  if (entry.end < entry.begin || entry.end - entry.begin != static_cast<uint64_t>(bytes)) {
    corrupt(subject,
            fmt::format("expected {} bytes for {} {}, got offsets {} to {}", bytes,
                        name_of(entry.dtype), to_string(entry.shape), entry.begin, entry.end));
  }
  return entry;
}

void read_metadata(const json& value, const std::string& subject,
                   std::map<std::string, std::string>& out) {
  if (!value.is_object()) corrupt(subject, "expected an object as __metadata__");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string())
      corrupt(subject, fmt::format("expected text as metadata \"{}\"", printable(key)));
    out[key] = text.get<std::string>();
  }
}

// Ranges must cover the data exactly: no holes, no overlaps, nothing behind.
void check_cover(std::vector<Entry> entries, uint64_t data_size, const std::string& subject) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != covered) {
      corrupt(subject,
              fmt::format("tensor \"{}\": expected data at {}, got {} ({})", printable(entry.name),
                          covered, entry.begin, entry.begin < covered ? "overlap" : "hole"));
    }
    covered = entry.end;
  }
  if (covered != data_size) {
    corrupt(subject, fmt::format("expected {} bytes of data, got {}", covered, data_size));
  }
}

uint64_t header_size(std::span<const std::byte> bytes, const std::string& subject,
                     const ArtifactLimits& limits) {
  if (bytes.size() < kPrefix)
    corrupt(subject, fmt::format("expected a header, got {} bytes", bytes.size()));
  uint64_t size = 0;
  for (size_t i = 0; i < kPrefix; ++i) size |= static_cast<uint64_t>(bytes[i]) << (8 * i);
  if (size > limits.header_bytes || size > bytes.size() - kPrefix) {
    corrupt(subject,
            fmt::format("expected a header of at most {} bytes, got {}",
                        std::min<uint64_t>(limits.header_bytes, bytes.size() - kPrefix), size));
  }
  return size;
}

// Compares what lies on the disk with what was meant to be written.
void read_back(const std::filesystem::path& written, const std::filesystem::path& path,
               std::span<const std::span<const std::byte>> pieces) {
  const MappedFile file(written);
  size_t at = 0;
  bool equal = true;
  for (const std::span<const std::byte> piece : pieces) {
    equal = equal && file.bytes().size() - at >= piece.size() &&
            std::equal(piece.begin(), piece.end(),
                       file.bytes().begin() + static_cast<std::ptrdiff_t>(at));
    if (!equal) break;
    at += piece.size();
  }
  if (!equal || at != file.bytes().size()) {
    throw Error(ErrorCode::kVerifyFailed,
                fmt::format("write: \"{}\": the file read back differs from what was written",
                            path.string()));
  }
}

// The header, padded with spaces so that the data start aligned, with its length in front.
std::string header_text(const json& header) {
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    throw Error(ErrorCode::kInvalidArgument, "safetensors: header: expected valid UTF-8 text");
  }
  while ((kPrefix + text.size()) % kAlignment != 0) text += ' ';
  std::string prefix;
  for (size_t i = 0; i < kPrefix; ++i) prefix += static_cast<char>(text.size() >> (8 * i) & 255);
  return prefix + text;
}

}  // namespace

SafetensorsFile parse_safetensors(std::span<const std::byte> bytes, const std::string& subject,
                                  const ArtifactLimits& limits) {
  const uint64_t size = header_size(bytes, subject, limits);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kPrefix, size);
  if (text.empty() || text[0] != '{') corrupt(subject, "expected a JSON header");
  const json header = parse_strict_json(text, "safetensors: " + subject, limits.json_depth);
  if (header.size() > limits.tensors + 1) {
    corrupt(subject,
            fmt::format("expected at most {} tensors, got {}", limits.tensors, header.size()));
  }
  const std::span<const std::byte> data = bytes.subspan(kPrefix + size);
  SafetensorsFile file;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      read_metadata(value, subject, file.metadata);
      continue;
    }
    if (!is_plain_name(name, limits.name_bytes)) {
      corrupt(subject, fmt::format("expected printable names of at most {} bytes, got \"{}\"",
                                   limits.name_bytes, printable(name)));
    }
    entries.push_back(read_entry(name, value, subject));
  }
  check_cover(entries, data.size(), subject);
  for (Entry& entry : entries) {
    Tensor tensor(entry.dtype, std::move(entry.shape));
    if (tensor.bytes() > 0) std::memcpy(tensor.data(), data.data() + entry.begin, tensor.bytes());
    file.tensors.emplace(std::move(entry.name), std::move(tensor));
  }
  return file;
}

SafetensorsFile read_safetensors(const std::filesystem::path& path, const ArtifactLimits& limits) {
  const MappedFile file(path);
  return parse_safetensors(file.bytes(), fmt::format("\"{}\"", path.string()), limits);
}

void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, std::string>& metadata,
                       const std::vector<std::pair<std::string, const Tensor*>>& tensors,
                       bool align) {
  static constexpr std::byte kZeros[kAlignment] = {};
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::vector<std::span<const std::byte>> pieces(1);
  uint64_t offset = 0;
  int pads = 0;
  const auto place = [&](const std::string& name, DType dtype, const Shape& shape,
                         const std::byte* data, size_t bytes) {
    if (!is_plain_name(name) || name == "__metadata__" || header.contains(name)) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("safetensors: tensor \"{}\": expected distinct printable names",
                              printable(name)));
    }
    header[name] = {
        {"dtype", name_of(dtype)}, {"shape", shape}, {"data_offsets", {offset, offset + bytes}}};
    pieces.emplace_back(data, bytes);
    offset += bytes;
  };
  for (const auto& [name, tensor] : tensors) {
    place(name, tensor->dtype(), tensor->shape(), static_cast<const std::byte*>(tensor->data()),
          tensor->bytes());
    const size_t missing = (kAlignment - offset % kAlignment) % kAlignment;
    if (align && missing != 0) {
      place(fmt::format("__pad__{}", pads++), DType::kU8, {static_cast<int64_t>(missing)}, kZeros,
            missing);
    }
  }
  const std::string text = header_text(header);
  pieces[0] = std::as_bytes(std::span(text.data(), text.size()));
  AtomicFile file(path);
  for (const std::span<const std::byte> piece : pieces) file.write(piece);
  read_back(file.temporary(), path, pieces);
  file.commit();
}

}  // namespace repquant
