#include "repquant/core/plan_json.h"

#include <fmt/format.h>

#include "repquant/core/files.h"
#include "repquant/core/strict_json.h"

namespace repquant {
namespace {

using nlohmann::json;

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data()), tensor.bytes()};
}

std::string text_digest(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text.data(), text.size())));
}

std::string dump(const json& value, const char* what) {
  try {
    return value.dump();
  } catch (const json::exception&) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("artifact: {}: expected valid UTF-8 text", what));
  }
}

json buffer_to_json(const Buffer& buffer) {
  return {{"name", buffer.name},
          {"dtype", name_of(buffer.dtype)},
          {"shape", buffer.item_shape},
          {"bits", buffer.bits}};
}

json step_to_json(const Step& step) {
  json value = {{"op", step.op}, {"name", step.name}, {"in", step.in}, {"out", step.out}};
  if (!step.tensors.empty()) value["tensors"] = step.tensors;
  if (!step.ints.empty()) value["ints"] = step.ints;
  if (!step.strings.empty()) value["strings"] = step.strings;
  if (!step.lists.empty()) value["lists"] = step.lists;
  return value;
}

json tensor_to_json(const PlanTensor& tensor) {
  json value = {
      {"layout", tensor.layout}, {"role", tensor.role}, {"crc32c", crc32c(bytes_of(tensor.data))}};
  if (tensor.bits != 0) value["bits"] = tensor.bits;
  if (!tensor.logical_shape.empty()) value["logical_shape"] = tensor.logical_shape;
  return value;
}

// Typed access that names what is wrong.
class Reader {
 public:
  Reader(const json& value, std::string subject) : value_(value), subject_(std::move(subject)) {
    if (!value_.is_object()) fail("an object");
  }

  [[noreturn]] void fail(const std::string& expected) const {
    throw Error(ErrorCode::kCorruptFile, fmt::format("{}: expected {}", subject_, expected));
  }
  const json* find(const char* key) const {
    const auto found = value_.find(key);
    return found == value_.end() ? nullptr : &*found;
  }
  const json& at(const char* key) const {
    if (const json* found = find(key)) return *found;
    fail(fmt::format("a key \"{}\"", key));
  }
  std::string text(const char* key) const { return text(at(key), key); }
  std::string text(const json& value, const char* key) const {
    if (!value.is_string()) fail(fmt::format("text as \"{}\"", key));
    return value.get<std::string>();
  }
  std::string name(const char* key) const {
    std::string text_ = text(key);
    if (!is_plain_name(text_))
      fail(fmt::format("a printable name of at most 512 bytes as \"{}\"", key));
    return text_;
  }
  int64_t integer(const json& value, const char* key) const {
    if (!value.is_number_integer()) fail(fmt::format("an integer as \"{}\"", key));
    return value.get<int64_t>();
  }
  int small(const json& value, const char* key) const {
    const int64_t v = integer(value, key);
    if (v < INT32_MIN || v > INT32_MAX) fail(fmt::format("a 32-bit integer as \"{}\"", key));
    return static_cast<int>(v);
  }
  std::vector<int64_t> integers(const json& value, const char* key) const {
    if (!value.is_array()) fail(fmt::format("a list as \"{}\"", key));
    std::vector<int64_t> list;
    for (const json& v : value) list.push_back(integer(v, key));
    return list;
  }
  std::vector<int> indices(const char* key) const {
    const json& value = at(key);
    if (!value.is_array()) fail(fmt::format("a list as \"{}\"", key));
    std::vector<int> list;
    for (const json& v : value) list.push_back(small(v, key));
    return list;
  }
  // Calls read(name, value) for every entry of an optional object.
  template <class Read> void entries(const char* key, const Read& read) const {
    const json* value = find(key);
    if (value == nullptr) return;
    if (!value->is_object()) fail(fmt::format("an object as \"{}\"", key));
    for (const auto& [name, entry] : value->items()) {
      if (!is_plain_name(name)) fail(fmt::format("printable names in \"{}\"", key));
      read(name, entry);
    }
  }

 private:
  const json& value_;
  std::string subject_;
};

Buffer read_buffer(const json& value, const std::string& subject) {
  const Reader reader(value, subject);
  Buffer buffer;
  buffer.name = reader.text("name");
  if (!buffer.name.empty()) buffer.name = reader.name("name");
  const std::string dtype = reader.text("dtype");
  if (dtype == "U8") buffer.dtype = DType::kU8;
  else if (dtype == "I64") buffer.dtype = DType::kI64;
  else if (dtype == "I32") buffer.dtype = DType::kI32;
  else if (dtype != "F32") reader.fail("dtype U8, F32, I64 or I32");
  buffer.item_shape = reader.integers(reader.at("shape"), "shape");
  buffer.bits = reader.small(reader.at("bits"), "bits");
  return buffer;
}

Step read_step(const json& value, const std::string& subject) {
  const Reader reader(value, subject);
  Step step;
  step.op = reader.name("op");
  step.name = reader.name("name");
  step.in = reader.indices("in");
  step.out = reader.indices("out");
  reader.entries("tensors", [&](const std::string& role, const json& v) {
    step.tensors[role] = reader.text(v, "tensors");
  });
  reader.entries("ints", [&](const std::string& key, const json& v) {
    step.ints[key] = reader.integer(v, "ints");
  });
  reader.entries("strings", [&](const std::string& key, const json& v) {
    step.strings[key] = reader.text(v, "strings");
  });
  reader.entries("lists", [&](const std::string& key, const json& v) {
    step.lists[key] = reader.integers(v, "lists");
  });
  return step;
}

PlanTensor read_tensor(const std::string& name, const json& value, Tensor data,
                       const std::string& subject) {
  const Reader reader(value, subject);
  PlanTensor tensor;
  tensor.name = name;
  tensor.layout = reader.name("layout");
  tensor.role = reader.text("role");
  if (const json* bits = reader.find("bits")) tensor.bits = reader.small(*bits, "bits");
  if (const json* shape = reader.find("logical_shape")) {
    tensor.logical_shape = reader.integers(*shape, "logical_shape");
  }
  const int64_t expected = reader.integer(reader.at("crc32c"), "crc32c");
  const uint32_t found = crc32c(bytes_of(data));
  if (expected != static_cast<int64_t>(found)) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: expected crc32c {:08x}, got {:08x}", subject,
                            static_cast<uint64_t>(expected), found));
  }
  tensor.data = std::move(data);
  return tensor;
}

}  // namespace

std::string provenance_to_json(const Plan& plan) { return dump(plan.provenance, "provenance"); }

std::string plan_to_json(const Plan& plan) {
  json value;
  value["model"] = plan.model;
  value["quality"] = plan.quality;
  value["provenance_sha256"] = text_digest(provenance_to_json(plan));
  value["inputs"] = plan.inputs;
  value["outputs"] = plan.outputs;
  json& buffers = value["buffers"] = json::array();
  for (const Buffer& buffer : plan.buffers) buffers.push_back(buffer_to_json(buffer));
  json& steps = value["steps"] = json::array();
  for (const Step& step : plan.steps) steps.push_back(step_to_json(step));
  json& tensors = value["tensors"] = json::object();
  for (const auto& [name, tensor] : plan.tensors) tensors[name] = tensor_to_json(tensor);
  return dump(value, "plan");
}

Plan plan_from_json(std::string_view text, std::string_view provenance,
                    std::map<std::string, Tensor> tensors, const std::string& subject, int depth) {
  const json value = parse_strict_json(text, subject + ": plan", depth);
  const Reader reader(value, subject + ": plan");
  Plan plan;
  plan.model = reader.at("model");
  plan.quality = reader.at("quality");
  plan.provenance = parse_strict_json(provenance, subject + ": provenance", depth);
  if (reader.text("provenance_sha256") != text_digest(provenance)) {
    throw Error(ErrorCode::kCorruptFile,
                subject + ": provenance: its digest differs from the plan's");
  }
  plan.inputs = reader.indices("inputs");
  plan.outputs = reader.indices("outputs");
  if (!reader.at("buffers").is_array() || !reader.at("steps").is_array()) {
    reader.fail("lists as \"buffers\" and \"steps\"");
  }
  for (const json& buffer : reader.at("buffers")) {
    plan.buffers.push_back(
        read_buffer(buffer, fmt::format("{}: buffer {}", subject, plan.buffers.size())));
  }
  for (const json& step : reader.at("steps")) {
    plan.steps.push_back(read_step(step, fmt::format("{}: step {}", subject, plan.steps.size())));
  }
  reader.entries("tensors", [&](const std::string& name, const json& entry) {
    const auto found = tensors.find(name);
    if (found == tensors.end())
      reader.fail(fmt::format("data of the tensor \"{}\"", printable(name)));
    plan.tensors[name] = read_tensor(name, entry, std::move(found->second),
                                     fmt::format("{}: tensor \"{}\"", subject, printable(name)));
    tensors.erase(found);
  });
  if (!tensors.empty()) {
    reader.fail(
        fmt::format("no tensor beside the plan's, got \"{}\"", printable(tensors.begin()->first)));
  }
  return plan;
}

}  // namespace repquant
