// The ONNX backend node tests (Debian: libonnx-testdata) through importer and interpreter.
// REPQUANT_WRITE_COVERAGE=FILE writes the table of docs/onnx_coverage.md.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>

#include <gtest/gtest.h>

#include "repquant/core/files.h"
#include "repquant/interpret/interpreter.h"
#include "repquant/load/load.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

constexpr int kFloor = 656;  // only ever raised
// Of the ONNX backend test runner.
constexpr double kRelative = 1e-3, kAbsolute = 1e-7;

fs::path data_folder() {
  const char* given = std::getenv("REPQUANT_ONNX_TESTDATA");
  return given != nullptr ? fs::path(given) : fs::path("/usr/share/libonnx-testdata/data/node");
}

// ---- TensorProto, as far as the test data needs it ----------------------------------------------
class Wire {
 public:
  explicit Wire(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool done() const { return bytes_.empty(); }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint64_t>(take(1)[0]);
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw std::runtime_error("varint too long");
  }
  std::span<const std::byte> take(uint64_t count) {
    if (count > bytes_.size()) throw std::runtime_error("truncated message");
    const auto result = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return result;
  }

 private:
  std::span<const std::byte> bytes_;
};

struct RawTensor {
  Shape shape;
  uint64_t type = 0;
  std::span<const std::byte> raw;
  std::vector<std::byte> values;  // of the typed fields, in the element's own layout
};

template <class T> void append(std::vector<std::byte>& to, T value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  to.insert(to.end(), bytes, bytes + sizeof(T));
}

void append_integer(RawTensor& tensor, uint64_t value) {
  switch (tensor.type) {
    case 2:
    case 3:
    case 9:
      return append(tensor.values, static_cast<uint8_t>(value));
    case 4:
    case 5:
    case 10:
    case 16:
      return append(tensor.values, static_cast<uint16_t>(value));
    case 6:
    case 12:
      return append(tensor.values, static_cast<uint32_t>(value));
    default:
      return append(tensor.values, value);
  }
}

// Field numbers of TensorProto: 1 dims, 2 data_type, 4 float_data, 5 int32_data, 7 int64_data, 9
// raw_data, 10 double_data, 11 uint64_data. The data type precedes the data in what protobuf
// writes.
RawTensor parse_raw(std::span<const std::byte> bytes) {
  RawTensor tensor;
  Wire wire(bytes);
  while (!wire.done()) {
    const uint64_t key = wire.varint(), field = key >> 3, kind = key & 7;
    if (kind == 0) {
      const uint64_t value = wire.varint();
      if (field == 1) tensor.shape.push_back(static_cast<int64_t>(value));
      else if (field == 2) tensor.type = value;
      else append_integer(tensor, value);
      continue;
    }
    if (kind != 2) {
      const auto value = wire.take(kind == 5 ? 4 : 8);
      tensor.values.insert(tensor.values.end(), value.begin(), value.end());
      continue;
    }
    const auto payload = wire.take(wire.varint());
    Wire inner(payload);
    if (field == 9) tensor.raw = payload;
    else if (field == 4 || field == 10) tensor.values.assign(payload.begin(), payload.end());
    else if (field == 1)
      while (!inner.done()) tensor.shape.push_back(static_cast<int64_t>(inner.varint()));
    else if (field == 5 || field == 7 || field == 11)
      while (!inner.done()) append_integer(tensor, inner.varint());
  }
  return tensor;
}

// As the importer has it: narrow floats are F32.
at::Tensor read_tensor(const fs::path& path) {
  static const std::map<uint64_t, DType> kTypes = {
      {1, DType::kF32},  {2, DType::kU8},   {3, DType::kI8},   {4, DType::kU16},  {5, DType::kI16},
      {6, DType::kI32},  {7, DType::kI64},  {9, DType::kBool}, {10, DType::kF16}, {11, DType::kF64},
      {12, DType::kU32}, {13, DType::kU64}, {16, DType::kBF16}};
  const auto bytes = read_file(path);
  const RawTensor raw = parse_raw(bytes);
  const auto type = kTypes.find(raw.type);
  if (type == kTypes.end())
    throw std::runtime_error("test data of type " + std::to_string(raw.type));
  Tensor tensor(type->second, raw.shape);
  const std::span<const std::byte> source =
      raw.raw.empty() ? std::span<const std::byte>(raw.values) : raw.raw;
  if (source.size() != tensor.bytes()) throw std::runtime_error("test data of the wrong length");
  if (!source.empty()) std::memcpy(tensor.data(), source.data(), source.size());
  const at::Tensor result = to_aten(tensor);
  const bool narrow = tensor.dtype() == DType::kF16 || tensor.dtype() == DType::kBF16;
  return narrow ? result.to(at::kFloat) : result;
}

// ---- one test ----------------------------------------------------------------------------------
std::string difference(const at::Tensor& got, const at::Tensor& expected) {
  if (got.sizes() != expected.sizes()) {
    return "shape " + to_string(got.sizes()) + ", expected " + to_string(expected.sizes());
  }
  if (got.scalar_type() != expected.scalar_type()) {
    return std::string("type ") + c10::toString(got.scalar_type()) + ", expected " +
           c10::toString(expected.scalar_type());
  }
  const at::Tensor a = got.to(at::kDouble), b = expected.to(at::kDouble);
  if (at::allclose(a, b, kRelative, kAbsolute, true)) return {};
  return "values differ, largest by " + std::to_string((a - b).abs().max().item<double>());
}

std::vector<at::Tensor> read_all(const fs::path& folder, const std::string& kind) {
  std::vector<at::Tensor> tensors;
  for (int i = 0; fs::exists(folder / (kind + "_" + std::to_string(i) + ".pb")); ++i) {
    const fs::path path = folder / (kind + "_" + std::to_string(i) + ".pb");
    tensors.push_back(fs::file_size(path) == 0 ? at::Tensor() : read_tensor(path));
  }
  return tensors;
}

// Empty when the test passes, else the reason.
std::string run_case(const fs::path& folder, Graph (*load)(const fs::path&)) {
  at::set_num_threads(1);
  try {
    const Graph graph = load(folder / "model.onnx");
    const WeightMap weights = load_weights(graph);
    const Interpreter interpreter(graph, weights);
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (!entry.is_directory()) continue;
      const auto outputs = interpreter.run(read_all(entry.path(), "input"));
      const auto expected = read_all(entry.path(), "output");
      if (outputs.size() != expected.size()) return "number of outputs differs";
      for (size_t i = 0; i < outputs.size(); ++i) {
        const std::string reason = difference(outputs[i], expected[i]);
        if (!reason.empty()) return "output " + std::to_string(i) + ": " + reason;
      }
    }
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::vector<fs::path> all_cases() {
  std::vector<fs::path> cases;
  for (const auto& entry : fs::directory_iterator(data_folder())) {
    if (fs::exists(entry.path() / "model.onnx")) cases.push_back(entry.path());
  }
  std::ranges::sort(cases);
  return cases;
}

// Where the message of a failure does not say why.
std::string explanation(const std::string& name, const std::string& message) {
  if (name.find("BFLOAT16") != std::string::npos) {
    return "16-bit floats are widened to float at import; the data stores them as uint16";
  }
  if (name.ends_with("align_corners")) {
    return "the data uses the size before rounding; this build, as onnxruntime, the rounded one";
  }
  return message;
}

void write_coverage(const fs::path& path, const std::map<std::string, std::string>& failures,
                    size_t passed) {
  std::ofstream out(path);
  out << "# ONNX node tests\n\nThe node tests of Debian's `libonnx-testdata`, run through importer "
         "and "
         "interpreter: "
      << passed << " of " << passed + failures.size()
      << " pass\n(relative tolerance 1e-3, absolute 1e-7). Written by\n\n"
         "    REPQUANT_WRITE_COVERAGE=docs/onnx_coverage.md build/release/bin/pipeline_test "
         "--gtest_filter='Conformance.*'\n\nThe others, with the reason:\n\n| test | reason "
         "|\n|---|---|\n";
  for (const auto& [name, reason] : failures) {
    std::string text = std::regex_replace(explanation(name, reason), std::regex(R"(/[^ "]*/)"), "");
    std::ranges::replace(text, '\n', ' ');
    text = std::regex_replace(text, std::regex(R"(\|)"), "\\|");
    out << "| " << name << " | " << text.substr(0, 200) << " |\n";
  }
}

TEST(Conformance, NodeTestsPass) {
  if (!fs::exists(data_folder()))
    GTEST_SKIP() << "assets missing: ONNX test data (package libonnx-testdata)";
  std::map<std::string, std::string> failures;
  size_t passed = 0;
  for (const fs::path& folder : all_cases()) {
    const std::string reason = run_case(folder, load_plain);
    if (reason.empty()) ++passed;
    else failures[folder.filename().string().substr(5)] = reason;
  }
  RecordProperty("passed", static_cast<int>(passed));
  if (const char* file = std::getenv("REPQUANT_WRITE_COVERAGE"))
    write_coverage(file, failures, passed);
  EXPECT_GE(passed, static_cast<size_t>(kFloor));
}

// Recognition may change how a value is computed, never whether a test passes.
TEST(Conformance, RecognitionKeepsEveryPass) {
  if (!fs::exists(data_folder()))
    GTEST_SKIP() << "assets missing: ONNX test data (package libonnx-testdata)";
  for (const fs::path& folder : all_cases()) {
    if (!run_case(folder, load_plain).empty()) continue;
    EXPECT_EQ(run_case(folder, load_model), "") << folder.filename();
  }
}

}  // namespace
}  // namespace repquant
