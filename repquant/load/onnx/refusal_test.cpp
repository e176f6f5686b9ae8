// What the importer refuses, and in which words.
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <random>

#include "repquant/graph/testing.h"
#include "repquant/load/onnx/testing.h"

namespace repquant {
namespace {

using namespace onnx_testing;
namespace fs = std::filesystem;

std::string refused(const std::function<void(ModelBuilder&)>& build, int64_t opset = 17) {
  ModelBuilder m(opset);
  m.input("x", {-1, 4});
  build(m);
  if (m.graph().output_size() == 0) m.output("y");
  return failure([&] { m.parse(); });
}

TEST(OnnxRefusal, OpsByName) {
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.node("Loop", {"", "", "x"}, {"y"}).set_name("loop_1");
            }),
            "unsupported: load onnx: node \"loop_1\" (Loop, opset 17): expected a graph without "
            "loops, got \"Loop\"");
  const std::string unknown = refused([](ModelBuilder& m) {
    m.node("GridSample", {"x", "x"}, {"y"});
  });
  EXPECT_EQ(
      unknown.rfind(
          "unsupported: load onnx: node \"y\" (GridSample, opset 17): expected one of the ", 0),
      0u)
      << unknown;
  EXPECT_NE(
      refused([](ModelBuilder& m) { m.node("SequenceConstruct", {"x"}, {"y"}); }).find("sequences"),
      std::string::npos);
  EXPECT_EQ(refused([](ModelBuilder& m) {   // reverses tensors, despite its name
              m.integers("lengths", {1, 2, 3, 4});
              m.node("ReverseSequence", {"x", "lengths"}, {"y"});
            }),
            "no error");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.node("FusedMatMul", {"x", "x"}, {"y"}).set_domain("com.microsoft");
            }),
            "unsupported: load onnx: node \"y\" (FusedMatMul, opset unknown): expected an op of "
            "the main ONNX domain or a "
            "function of the model, got domain \"com.microsoft\"");
  EXPECT_EQ(refused([](ModelBuilder& m) { m.node("Gelu", {"x"}, {"y"}); }),
            "corrupt: load onnx: node \"y\" (Gelu, opset 17): expected opset 20 or later for "
            "\"Gelu\", got 17");
  EXPECT_EQ(refused(
                [](ModelBuilder& m) {
                  m.node("Einsum", {"x", "x"}, {"y"});
                },
                28),
            "unsupported: load onnx: node \"y\" (Einsum, opset 28): op \"Einsum\" has a newer "
            "version in opset 28, this build "
            "knows it up to 27");
}

TEST(OnnxRefusal, OpsetsAndVersions) {
  EXPECT_EQ(refused([](ModelBuilder& m) { m.node("Relu", {"x"}, {"y"}); }, 99),
            "unsupported: load onnx: model: expected opset 9 to 23, got 99");
  EXPECT_EQ(refused([](ModelBuilder& m) { m.node("Relu", {"x"}, {"y"}); }, 8),
            "unsupported: load onnx: model: expected opset 9 to 23, got 8");
  EXPECT_EQ(refused([](ModelBuilder& m) { m.node("Relu", {"x"}, {"y"}); }, 26), "no error");
  EXPECT_EQ(refused([](ModelBuilder& m) { m.model.set_ir_version(15); }),
            "unsupported: load onnx: model: expected IR version 3 to 14, got 15");
  EXPECT_EQ(refused([](ModelBuilder& m) { m.model.add_training_info(); }).rfind("unsupported: ", 0),
            0u);
}

TEST(OnnxRefusal, TensorsOfOtherKinds) {
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.tensor("w", {1}, onnx::TensorProto::STRING).add_string_data("a");
            }),
            "unsupported: load onnx: tensor \"w\": expected numbers or booleans, got strings");
  EXPECT_EQ(refused([](ModelBuilder& m) { m.input("s", {1}, onnx::TensorProto::STRING); }),
            "unsupported: load onnx: graph input \"s\": expected numbers or booleans, got strings");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.tensor("w", {1}, 23);
            }).rfind("unsupported: load onnx: tensor \"w\"", 0),
            0u);
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.graph().add_sparse_initializer()->mutable_values()->set_name("s");
            }),
            "unsupported: load onnx: tensor \"s\": expected a dense tensor, got a sparse one");
}

TEST(OnnxRefusal, ContradictingTensors) {
  EXPECT_EQ(refused([](ModelBuilder& m) { m.floats("w", {2}, {1, 2, 3}); }),
            "corrupt: load onnx: tensor \"w\": expected 8 bytes for shape [2], got 12");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.tensor("w", {int64_t{1} << 40, int64_t{1} << 40}, onnx::TensorProto::FLOAT);
            }),
            "corrupt: load onnx: tensor \"w\": expected a shape that fits into 64 bits, got "
            "[1099511627776, 1099511627776]");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.tensor("w", {-3}, onnx::TensorProto::FLOAT);
            }).rfind("corrupt: ", 0),
            0u);
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.floats("blocks.0.weight", {1}, {std::numeric_limits<float>::quiet_NaN()});
            }),
            "corrupt: load onnx: tensor \"blocks.0.weight\": expected numbers, got NaN among them");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.floats("mask", {1}, {-std::numeric_limits<float>::infinity()});
              m.node("Add", {"x", "mask"}, {"y"});
            }), "no error");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.tensor("w", {1}, onnx::TensorProto::INT8).add_int32_data(300);
            }),
            "corrupt: load onnx: tensor \"w\": element 0: expected a value of its type, got 300");
}

TEST(OnnxRefusal, BrokenGraphs) {
  EXPECT_EQ(
      refused([](ModelBuilder& m) {
        m.node("Add", {"x", "b"}, {"a"}).set_name("first");
        m.node("Relu", {"a"}, {"b"}).set_name("second");
        m.output("b");
      }),
      "corrupt: graph: node \"first\": expected a graph without cycles, got one through this node");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.node("Add", {"x", "nowhere"}, {"y"});
            }),
            "corrupt: load onnx: node \"y\" (Add, opset 17): input \"nowhere\": expected a value "
            "defined in the graph, got none");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.node("Relu", {"x"}, {"y"});
              m.node("Neg", {"x"}, {"y"});
            }),
            "corrupt: load onnx: node \"y\" (Neg, opset 17): output \"y\": expected a name used "
            "once, got it twice");
  EXPECT_EQ(refused([](ModelBuilder& m) { m.node("Add", {"x"}, {"y"}); }),
            "corrupt: load onnx: node \"y\" (Add, opset 17): expected 2 to 2 inputs and an output, "
            "got 1 and 1");
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.input("x", {1});
            }).rfind("corrupt: load onnx: graph input \"x\"", 0),
            0u);
  EXPECT_EQ(refused([](ModelBuilder& m) {
              m.output("z");
            }).rfind("corrupt: load onnx: graph output \"z\"", 0),
            0u);
  EXPECT_EQ(failure([] { ModelBuilder().parse(); }),
            "corrupt: load onnx: graph: expected outputs, got none");
  EXPECT_EQ(failure([] { parse_onnx({}, {}, "e"); }).rfind("corrupt: ", 0), 0u);
}

TEST(OnnxRefusal, TrainingForms) {
  EXPECT_EQ(
      refused([](ModelBuilder& m) {
        m.floats("p", {4}, {1, 1, 1, 1});
        set_int(m.node("BatchNormalization", {"x", "p", "p", "p", "p"}, {"y"}), "training_mode", 1);
      }),
      "unsupported: load onnx: node \"y\" (BatchNormalization, opset 17): expected inference, got "
      "training_mode 1");
}

TEST(OnnxRefusal, Limits) {
  ModelBuilder m;
  m.input("x", {1});
  m.floats("w", {64}, std::vector<float>(64, 1.0f));
  m.node("Add", {"x", "w"}, {"y"});
  m.output("y");
  OnnxLimits few;
  few.nodes = 0;
  EXPECT_EQ(failure([&] { m.parse({}, few); }),
            "exhausted: load onnx: graph: expected at most 0 nodes, got more");
  OnnxLimits small;
  small.tensor_bytes = 255;
  EXPECT_EQ(failure([&] { m.parse({}, small); }).rfind("exhausted: load onnx: tensor \"w\"", 0),
            0u);
}

// ---- damaged files
// ----------------------------------------------------------------------------------

std::string read_whole(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Any error is welcome but a broken invariant: that would be ours.
void try_bytes(std::string_view bytes) {
  const std::string outcome = failure([&] {
    Graph graph = parse_onnx(std::as_bytes(std::span(bytes)), {}, "damaged.onnx");
    infer_shapes(graph);
  });
  ASSERT_NE(outcome.rfind("internal", 0), 0u) << outcome;
}

TEST(OnnxDamage, TruncatedAnywhere) {
  const std::string whole = read_whole(graph_testing::repository() / "models/demo_vit.onnx");
  ASSERT_GT(whole.size(), 100000u);
  std::mt19937_64 random(11);
  for (int i = 0; i < 200; ++i) {
    const size_t length = i < 50 ? static_cast<size_t>(i) : random() % whole.size();
    const std::string cut = whole.substr(0, length);
    const std::string outcome =
        failure([&] { parse_onnx(std::as_bytes(std::span(cut)), {}, "cut.onnx"); });
    EXPECT_EQ(outcome.rfind("corrupt: load onnx: ", 0), 0u) << length << " " << outcome;
  }
}

TEST(OnnxDamage, FlippedBits) {
  std::string bytes = read_whole(graph_testing::repository() / "models/demo_vit.onnx");
  ASSERT_GT(bytes.size(), 100000u);
  // Weights take most of the file: half of the flips go where the structure is densest.
  const std::string marker = "blocks.0.attn";
  const size_t structure = std::min(bytes.size() - 1, bytes.find(marker) + 20000);
  std::mt19937_64 random(12);
  for (int i = 0; i < 2000; ++i) {
    const size_t at = random() % (i % 2 == 0 ? bytes.size() : structure);
    const char flip = static_cast<char>(1u << (random() % 8));
    bytes[at] = static_cast<char>(bytes[at] ^ flip);
    try_bytes(bytes);
    bytes[at] = static_cast<char>(bytes[at] ^ flip);
  }
}

}  // namespace
}  // namespace repquant
