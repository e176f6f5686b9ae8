#include "repquant/core/artifact.h"

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "repquant/core/example_plan.h"
#include "repquant/core/files.h"
#include "repquant/core/plan_json.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;
using testing::HasSubstr;

class Artifact : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "repquant_artifact_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path path() const { return folder_ / "a.rq.safetensors"; }
  Bytes example_bytes() const {
    write_artifact(path(), example_plan());
    return read_file(path());
  }

  fs::path folder_;
};

bool equal(const Plan& a, const Plan& b) {
  return a.model == b.model && a.quality == b.quality && a.provenance == b.provenance &&
         a.buffers == b.buffers && a.inputs == b.inputs && a.outputs == b.outputs &&
         a.steps == b.steps && artifact_digest(a) == artifact_digest(b);
}

// A safetensors file around any header text and data.
Bytes container(const std::string& header, const std::string& data = "", int64_t length = -1) {
  const uint64_t size = length < 0 ? header.size() : static_cast<uint64_t>(length);
  std::string text;
  for (size_t i = 0; i < 8; ++i) text += static_cast<char>(size >> (8 * i) & 255);
  text += header + data;
  Bytes bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// Code and message of a refusal; fails the test when the bytes are accepted.
std::string refusal(const std::function<void()>& action, ErrorCode code = ErrorCode::kCorruptFile) {
  try {
    action();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "expected a refusal";
  return "";
}
std::string refused_file(const Bytes& bytes, ErrorCode code = ErrorCode::kCorruptFile) {
  return refusal([&] { parse_safetensors(bytes, "file"); }, code);
}

// ---- round trips --------------------------------------------------------------------------------
TEST_F(Artifact, RoundTrip) {
  const Plan plan = example_plan();
  const std::string digest = write_artifact(path(), plan);
  const Plan back = read_artifact(path());
  EXPECT_TRUE(equal(plan, back));
  EXPECT_EQ(digest, artifact_digest(back));
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_TRUE(is_artifact(path()));
  for (const auto& [name, tensor] : plan.tensors) {
    const PlanTensor& other = back.tensors.at(name);
    EXPECT_EQ(other.layout, tensor.layout);
    EXPECT_EQ(other.bits, tensor.bits);
    EXPECT_EQ(other.logical_shape, tensor.logical_shape);
    EXPECT_EQ(other.role, tensor.role);
  }
}

TEST_F(Artifact, EqualPlansGiveEqualBytes) {
  const Bytes first = example_bytes();
  const fs::path other = folder_ / "other";
  write_artifact(other, read_artifact(path()));
  EXPECT_EQ(read_file(other), first);
}

TEST_F(Artifact, DataIsAlignedAndWithoutHoles) {
  const Bytes bytes = example_bytes();
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  EXPECT_EQ((8 + header) % 64, 0u);
  EXPECT_EQ(bytes.size() % 64, 0u);
  const nlohmann::json json =
      nlohmann::json::parse(std::string(reinterpret_cast<const char*>(bytes.data()) + 8, header));
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__" || name.starts_with("__pad__")) continue;
    EXPECT_EQ(entry["data_offsets"][0].get<uint64_t>() % 64, 0u) << name;
  }
}

TEST_F(Artifact, ALongPlanMovesIntoATensor) {
  Plan plan = example_plan();
  plan.model["labels"] = std::string((8u << 20) + 5, 'x');
  write_artifact(path(), plan);
  EXPECT_TRUE(read_safetensors(path()).tensors.contains("__plan__"));
  EXPECT_TRUE(equal(plan, read_artifact(path())));
}

TEST_F(Artifact, AnInvalidPlanIsNotWritten) {
  Plan plan = example_plan();
  plan.steps[3].op = "nonsense";
  EXPECT_THROW(write_artifact(path(), plan), Error);
  plan = example_plan();
  plan.model = "\xff";
  EXPECT_THROW(write_artifact(path(), plan), Error);
  EXPECT_TRUE(fs::is_empty(folder_));
}

// Files of every minor version must load forever.
TEST(ArtifactGolden, Version1_0) {
  const fs::path root = fs::path(__FILE__).parent_path().parent_path().parent_path();
  const Plan plan = read_artifact(root / "tests" / "golden" / "artifact_1.0.rq.safetensors");
  EXPECT_EQ(plan.steps.size(), example_plan().steps.size());
  EXPECT_EQ(plan.model["class_names"][2], "c");
  EXPECT_EQ(unpack_weights(plan.tensors.at("fc2.w")),
            unpack_weights(example_plan().tensors.at("fc2.w")));
}

TEST_F(Artifact, IsArtifactLooksAtTheContent) {
  write_file_atomically(folder_ / "text", "{\"format\":\"repquant\"}");
  EXPECT_FALSE(is_artifact(folder_ / "text"));
  EXPECT_FALSE(is_artifact(folder_ / "none"));
  EXPECT_FALSE(is_artifact(folder_));
  const Tensor t = Tensor::of<float>({2}, {1.0f, 2.0f});
  write_safetensors(folder_ / "data", {{"format", "pt"}}, {{"t", &t}}, false);
  EXPECT_FALSE(is_artifact(folder_ / "data"));
  EXPECT_THAT(refusal([&] { read_artifact(folder_ / "data"); }), HasSubstr("format"));
}

// ---- damage -------------------------------------------------------------------------------------
TEST_F(Artifact, TruncationAtEveryByteIsRefused) {
  const Bytes bytes = example_bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(parse_artifact(std::span(bytes).first(size), "file"), Error) << size;
  }
  Bytes longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_THROW(parse_artifact(longer, "file"), Error);
}

// Flips every `stride`-th bit. What is still read must be the same plan; data bytes have no such
// slack.
void flip_bits(Bytes bytes, size_t stride) {
  const Plan plan = parse_artifact(bytes, "file");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  for (size_t i = 0; i < 8 * bytes.size(); i += stride) {
    const std::byte mask = std::byte{1} << (i % 8);
    bytes[i / 8] ^= mask;
    try {
      const Plan changed = parse_artifact(bytes, "file");
      EXPECT_TRUE(equal(plan, changed)) << "bit " << i;
      EXPECT_LT(i / 8, 8 + header) << "bit " << i;
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ErrorCode::kCorruptFile || e.code() == ErrorCode::kUnsupported)
          << e.what();
    }
    bytes[i / 8] ^= mask;
  }
}

// x -> codes -> x: the smallest plan with every part of the format.
Plan small_plan() {
  Plan plan;
  plan.buffers = {
      {"x", DType::kF32, {4}, 32}, {"q", DType::kU8, {4}, 8}, {"y", DType::kF32, {4}, 32}};
  plan.inputs = {0};
  plan.outputs = {2};
  Step quantize{.op = "quantize", .name = "a", .in = {0}, .out = {1}};
  quantize.tensors = {{"inv", "a.inv"}};
  quantize.ints = {{"zero", 3}, {"lo", 0}, {"hi", 255}};
  Step dequantize{.op = "dequantize", .name = "b", .in = {1}, .out = {2}};
  dequantize.tensors = {{"s", "b.s"}};
  dequantize.ints = {{"zero", 3}};
  plan.steps = {quantize, dequantize};
  plan.tensors["a.inv"] = {.name = "a.inv", .data = Tensor::of<float>({1}, {10.0f}), .role = "inv"};
  plan.tensors["b.s"] = {.name = "b.s", .data = Tensor::of<float>({1}, {0.1f}), .role = "s"};
  plan.provenance = {{"seed", 1}};
  return plan;
}

TEST_F(Artifact, EveryBitFlipIsRefusedOrHarmless) {
  write_artifact(path(), small_plan());
  flip_bits(read_file(path()), 1);
}

TEST_F(Artifact, ManyBitFlipsOfALargerFile) { flip_bits(example_bytes(), 37); }

// ---- metadata -----------------------------------------------------------------------------------
class Metadata : public Artifact {
 protected:
  // Reads the example with one metadata value replaced (or erased, if empty).
  std::string refused(const std::string& key, const std::string& value,
                      ErrorCode code = ErrorCode::kCorruptFile) {
    example_bytes();
    SafetensorsFile file = read_safetensors(path());
    if (value.empty()) file.metadata.erase(key);
    else file.metadata[key] = value;
    std::vector<std::pair<std::string, const Tensor*>> tensors;
    for (const auto& [name, tensor] : file.tensors) tensors.emplace_back(name, &tensor);
    write_safetensors(folder_ / "b", file.metadata, tensors, false);
    return refusal([&] { read_artifact(folder_ / "b"); }, code);
  }
};

TEST_F(Metadata, VersionsAndFeatures) {
  EXPECT_THAT(refused("repquant.version", "2.0", ErrorCode::kUnsupported), HasSubstr("1.x"));
  refused("repquant.version", "one");
  refused("repquant.version", "");
  EXPECT_THAT(refused("repquant.requires", "log_softmax,holograms", ErrorCode::kUnsupported),
              HasSubstr("holograms"));
  refused("format", "other");
  refused("format", "");
  EXPECT_THAT(refused("repquant.digest", std::string(64, '0')), HasSubstr("damaged"));
  EXPECT_THAT(refused("repquant.provenance", "{\"seed\":1}"), HasSubstr("provenance"));
  refused("repquant.plan", "{}");
  refused("repquant.plan", "");
}

// ---- hostile containers -------------------------------------------------------------------------
TEST(Safetensors, PlainFilesAreRead) {
  const SafetensorsFile file = parse_safetensors(
      container(
          R"({"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
          R"("b":{"dtype":"BOOL","shape":[],"data_offsets":[0,1]},)"
                R"("e":{"dtype":"F32","shape":[0,5],"data_offsets":[3,3]}}  )",
          "xyz"),
      "file");
  EXPECT_EQ(file.metadata.at("k"), "v");
  EXPECT_EQ(file.tensors.at("a").as<uint8_t>()[1], 'z');
  EXPECT_EQ(file.tensors.at("e").size(), 0);
  EXPECT_TRUE(parse_safetensors(container("{}"), "file").tensors.empty());
}

TEST(Safetensors, HeaderLengths) {
  for (const int64_t length : {int64_t{3}, int64_t{1} << 40, INT64_MAX, int64_t{1} << 62}) {
    refused_file(container("{}", "", length));
  }
  refused_file({});
  refused_file(Bytes(7));
  refused_file(container(""));
  refused_file(container("[]"));
  refused_file(container(" {}"));
  EXPECT_THAT(refusal([] { parse_safetensors(container("{}"), "file", {.header_bytes = 1}); }),
              HasSubstr("at most 1"));
}

TEST(Safetensors, Entries) {
  const auto entry = [](const std::string& text, const std::string& data = "abcdefgh") {
    return refused_file(container("{\"a\":" + text + "}", data));
  };
  entry("1");
  entry("{}");
  entry(R"({"dtype":"U8","shape":[8]})");
  entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8],"more":1})");
  entry(R"({"dtype":7,"shape":[8],"data_offsets":[0,8]})");
  entry(R"({"dtype":"U8","shape":[-8],"data_offsets":[0,8]})");
  entry(R"({"dtype":"U8","shape":[8.0],"data_offsets":[0,8]})");
  entry(R"({"dtype":"U8","shape":8,"data_offsets":[0,8]})");
  entry(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,8],"data_offsets":[0,8]})");
  entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8,8]})");
  entry(R"({"dtype":"U8","shape":[8],"data_offsets":[8,0]})");
  entry(R"({"dtype":"U8","shape":[8],"data_offsets":[-8,0]})");
  entry(R"({"dtype":"F32","shape":[8],"data_offsets":[0,8]})");
  entry(R"({"dtype":"U8","shape":[9007199254740992,9007199254740992],"data_offsets":[0,8]})");
  entry(R"({"dtype":"F64","shape":[4503599627370496,512],"data_offsets":[0,8]})");
  entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,9007199254740992]})");
  EXPECT_THAT(entry(R"({"dtype":"U8","shape":[7],"data_offsets":[0,7]})"), HasSubstr("7 bytes"));
  EXPECT_THAT(entry(R"({"dtype":"U8","shape":[7],"data_offsets":[1,8]})"), HasSubstr("hole"));
  EXPECT_THAT(
      refused_file(
          container(R"({"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}})", "abcdefgh"),
          ErrorCode::kUnsupported),
      HasSubstr("F8_E4M3"));
}

TEST(Safetensors, OverlapsDuplicatesAndNames) {
  const std::string a = R"({"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
  const std::string b = R"({"dtype":"U8","shape":[2],"data_offsets":[1,3]})";
  EXPECT_THAT(refused_file(container("{\"a\":" + a + ",\"b\":" + b + "}", "xyz")),
              HasSubstr("overlap"));
  EXPECT_THAT(refused_file(container("{\"a\":" + a + ",\"a\":" + a + "}", "xy")),
              HasSubstr("twice"));
  refused_file(container("{\"a\":" + a + ",\"b\":" + a + "}", "xy"));
  EXPECT_THAT(refused_file(container("{\"a\\u001b[31m\":" + a + "}", "xy")), HasSubstr("\\x1b"));
  refused_file(container("{\"\":" + a + "}", "xy"));
  refused_file(container("{\"" + std::string(513, 'n') + "\":" + a + "}", "xy"));
  refused_file(container(R"({"__metadata__":{"a":1}})"));
  refused_file(container(R"({"__metadata__":"a"})"));
  refused_file(container("{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}"));
  refused_file(container("{\"a\":NaN}"));
  refused_file(container("{\"\xff\":" + a + "}", "xy"));
}

TEST(Safetensors, TensorCountIsLimited) {
  std::string header = "{";
  for (int i = 0; i < 5; ++i) {
    header += (i > 0 ? ",\"" : "\"") + std::to_string(i) +
              R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  const Bytes bytes = container(header + "}");
  EXPECT_EQ(parse_safetensors(bytes, "file").tensors.size(), 5u);
  EXPECT_THAT(refusal([&] { parse_safetensors(bytes, "file", {.tensors = 3}); }),
              HasSubstr("at most 3"));
}

// ---- writing ------------------------------------------------------------------------------------
TEST_F(Artifact, UnusablePathsLeaveNothing) {
  refusal([&] { write_artifact(folder_ / "none" / "a", example_plan()); }, ErrorCode::kNotFound);
  refusal([&] { write_artifact(folder_, example_plan()); }, ErrorCode::kInvalidArgument);
  refusal([&] { read_artifact(folder_ / "none"); }, ErrorCode::kNotFound);
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(Artifact, AFullDiskKeepsTheOldArtifact) {
  const Bytes before = example_bytes();
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1024, 1024};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_artifact(path(), example_plan());
    } catch (const Error& e) {
      ::_exit(e.code() == ErrorCode::kResourceExhausted ? 42 : 1);
    }
    ::_exit(2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_EQ(read_file(path()), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(Artifact, WritersRefuseBadNames) {
  const Tensor t = Tensor::of<uint8_t>({1}, {7});
  for (const std::string& name :
       {std::string("a\nb"), std::string(), std::string("__metadata__"), std::string("\xff")}) {
    EXPECT_THROW(write_safetensors(path(), {}, {{name, &t}}, true), Error);
  }
  EXPECT_THROW(write_safetensors(path(), {}, {{"a", &t}, {"a", &t}}, true), Error);
  EXPECT_THROW(write_safetensors(path(), {{"k", "\xff"}}, {{"a", &t}}, true), Error);
  EXPECT_TRUE(fs::is_empty(folder_));
}

// ---- the plan's text ----------------------------------------------------------------------------
std::map<std::string, Tensor> data_of(const Plan& plan) {
  std::map<std::string, Tensor> data;
  for (const auto& [name, tensor] : plan.tensors) data[name] = tensor.data;
  return data;
}

TEST(PlanJson, RoundTripsAndIsCanonical) {
  const Plan plan = example_plan();
  const std::string text = plan_to_json(plan);
  const Plan back = plan_from_json(text, provenance_to_json(plan), data_of(plan), "file");
  EXPECT_TRUE(equal(plan, back));
  EXPECT_EQ(plan_to_json(back), text);
}

TEST(PlanJson, WrongTypesAreRefused) {
  const Plan plan = example_plan();
  const auto refused = [&](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json value = nlohmann::json::parse(plan_to_json(plan));
    change(value);
    return refusal(
        [&] { plan_from_json(value.dump(), provenance_to_json(plan), data_of(plan), "file"); });
  };
  const nlohmann::json whole = nlohmann::json::parse(plan_to_json(plan));
  for (const auto& [key, unused] : whole.items()) {
    if (key == "tensors") continue;  // absent means none, which the data then contradict
    EXPECT_THAT(refused([&](nlohmann::json& v) { v.erase(key); }), HasSubstr(key));
  }
  for (const char* key :
       {"buffers", "steps", "inputs", "outputs", "tensors", "provenance_sha256"}) {
    refused([&](nlohmann::json& v) { v[key] = 1; });
  }
  refused([](nlohmann::json& v) { v.erase("tensors"); });
  refused([](nlohmann::json& v) { v["inputs"] = {0.5}; });
  refused([](nlohmann::json& v) { v["inputs"] = {int64_t{1} << 33}; });
  refused([](nlohmann::json& v) { v["buffers"][0]["dtype"] = "U64"; });
  refused([](nlohmann::json& v) { v["buffers"][0]["shape"] = "8"; });
  refused([](nlohmann::json& v) { v["steps"][0]["op"] = 3; });
  refused([](nlohmann::json& v) { v["steps"][0]["name"] = "a\nb"; });
  refused([](nlohmann::json& v) { v["steps"][0]["lists"] = {{"dims", {1.5}}}; });
  refused([](nlohmann::json& v) { v["steps"][0]["ints"] = {{"a", "b"}}; });
  refused([](nlohmann::json& v) {
    v["tensors"]["more"] = {{"layout", "plain"}, {"role", "more"}, {"crc32c", 0}};
  });
  refused([](nlohmann::json& v) { v["tensors"].erase("qkv.c"); });
  EXPECT_THAT(refused([](nlohmann::json& v) { v["tensors"]["qkv.c"]["crc32c"] = 1; }),
              HasSubstr("qkv.c"));
}

}  // namespace
}  // namespace repquant
