#include "repquant/load/onnx/onnx.h"

#include <limits>

#include <fmt/format.h>
#include <google/protobuf/stubs/logging.h>

#include "repquant/core/files.h"
#include "repquant/load/onnx/importer.h"

namespace repquant {
namespace load {

std::string in_quotes(std::string_view name) {
  constexpr size_t kLimit = 120;
  std::string text = "\"";
  for (const char c : name.substr(0, kLimit)) {
    if (c == '"' || c == '\\') text += '\\';
    if (static_cast<unsigned char>(c) < 32 || c == 127) text += fmt::format("\\x{:02x}", c);
    else text += c;
  }
  return text + (name.size() > kLimit ? "...\"" : "\"");
}

void corrupt(const std::string& what, const std::string& hint) {
  throw Error(ErrorCode::kCorruptFile, "load onnx: " + what, hint);
}

void unsupported(const std::string& what, const std::string& hint) {
  throw Error(ErrorCode::kUnsupported, "load onnx: " + what, hint);
}

}  // namespace load

Graph parse_onnx(std::span<const std::byte> bytes, const std::filesystem::path& base_folder,
                 std::string_view subject, const OnnxLimits& limits) {
  constexpr uint64_t kProtobufLimit = std::numeric_limits<int>::max();
  const uint64_t most = std::min(limits.file_bytes, kProtobufLimit);
  if (bytes.size() > most) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("load onnx: {}: expected at most {} bytes, got {}",
                            load::in_quotes(subject), most, bytes.size()),
                "save large models with external data");
  }
  onnx::ModelProto model;
  {
    const google::protobuf::LogSilencer
        silent;  // damaged files are our error message, not a log line
    if (!model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
      load::corrupt(fmt::format("{}: expected an ONNX model, got bytes that do not parse",
                                load::in_quotes(subject)),
                    "the file is truncated or is not an .onnx file");
    }
  }
  return load::Importer(model, load::TensorReader(base_folder, limits), limits).run();
}

Graph load_onnx(const std::filesystem::path& path, const OnnxLimits& limits) {
  const MappedFile file(path);
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  return parse_onnx(file.bytes(), folder, path.string(), limits);
}

}  // namespace repquant
