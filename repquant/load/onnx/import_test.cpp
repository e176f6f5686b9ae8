// How files become graphs: storage forms, names, inlining, older opsets.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include <unistd.h>

#include "repquant/graph/infer.h"
#include "repquant/graph/testing.h"
#include "repquant/load/onnx/tensor.h"
#include "repquant/load/onnx/testing.h"

namespace repquant {
namespace {

using namespace onnx_testing;
using namespace load;
using graph_testing::shape_text;
namespace fs = std::filesystem;

const Tensor& constant_named(const Graph& graph, const std::string& name) {
  for (ValueId id = 0; id < static_cast<ValueId>(graph.value_count()); ++id) {
    if (graph.value(id).name == name && graph.is_constant(id)) return *graph.value(id).constant;
  }
  throw Error(ErrorCode::kNotFound, "test: constant not found");
}

const Node& only(const Graph& graph, OpKind op) {
  const Node* found = nullptr;
  for (const NodeId id : graph.order()) {
    if (graph.node(id).op == op) found = &graph.node(id);
  }
  REPQUANT_CHECK(found != nullptr);
  return *found;
}

// ---- tensors
// ----------------------------------------------------------------------------------------

TEST(OnnxTensor, EveryStorageForm) {
  ModelBuilder m;
  m.input("x", {1});
  m.node("Relu", {"x"}, {"y"});
  m.output("y");
  m.tensor("raw", {2}, kFloat).set_raw_data(std::string("\x00\x00\x80\x3f\x00\x00\x00\xc0", 8));
  auto& half = m.tensor("half", {3}, kFloat16);
  for (const int bits : {0x3c00, 0x8001, 0x7bff}) half.add_int32_data(bits);
  m.tensor("bf16", {1}, kBfloat16).set_raw_data(std::string("\x40\xc0", 2));
  m.tensor("f8", {2}, kFloat8E4M3Fn).set_raw_data("\x38\x7e");
  m.tensor("u4", {3}, kUint4).set_raw_data("\xf1\x07");
  m.tensor("i4", {3}, kInt4).set_raw_data("\xf1\x08");
  auto& bools = m.tensor("bool", {2}, kBool);
  bools.add_int32_data(1);
  bools.add_int32_data(0);
  m.tensor("i8", {1}, kInt8).add_int32_data(-5);
  m.tensor("u32", {1}, kUint32).add_uint64_data(4000000000u);
  m.tensor("f64", {}, kDouble).add_double_data(0.1);
  m.tensor("empty", {0, 3}, kInt64);
  const Graph g = m.parse();
  const auto floats = [&](const char* name) {
    const auto span = constant_named(g, name).as<float>();
    return std::vector<float>(span.begin(), span.end());
  };
  EXPECT_EQ(floats("raw"), (std::vector<float>{1, -2}));
  EXPECT_EQ(floats("half"), (std::vector<float>{1, -0x1p-24f, 65504}));
  EXPECT_EQ(floats("bf16"), std::vector<float>{-3.0f});
  EXPECT_EQ(floats("f8"), (std::vector<float>{1, 448}));
  EXPECT_EQ(constant_named(g, "u4").as<uint8_t>()[0], 1);
  EXPECT_EQ(constant_named(g, "u4").as<uint8_t>()[1], 15);
  EXPECT_EQ(constant_named(g, "i4").as<int8_t>()[1], -1);
  EXPECT_EQ(constant_named(g, "i4").as<int8_t>()[2], -8);
  EXPECT_TRUE(constant_named(g, "bool").as<bool>()[0]);
  EXPECT_EQ(constant_named(g, "i8").as<int8_t>()[0], -5);
  EXPECT_EQ(constant_named(g, "u32").as<uint32_t>()[0], 4000000000u);
  EXPECT_EQ(constant_named(g, "f64").as<double>()[0], 0.1);
  EXPECT_EQ(constant_named(g, "empty").size(), 0);
}

TEST(OnnxTensor, HalvesMatchTheirFormula) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float value = half_to_float(static_cast<uint16_t>(bits));
    if (exponent == 31) {
      EXPECT_EQ(std::isnan(value), fraction != 0);
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    EXPECT_EQ(value, static_cast<float>(bits & 0x8000 ? -magnitude : magnitude));
  }
}

struct TempFolder {
  fs::path path = fs::temp_directory_path() / ("repquant_onnx_" + std::to_string(::getpid()));
  TempFolder() { fs::create_directories(path / "model"); }
  ~TempFolder() { fs::remove_all(path); }
  void write(const fs::path& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary) << bytes;
  }
};

ModelBuilder external_model(const std::vector<std::pair<std::string, std::string>>& entries) {
  ModelBuilder m;
  m.input("x", {2});
  auto& w = m.tensor("w", {2}, kFloat);
  w.set_data_location(onnx::TensorProto::EXTERNAL);
  for (const auto& [key, value] : entries) {
    auto& entry = *w.add_external_data();
    entry.set_key(key);
    entry.set_value(value);
  }
  m.node("Add", {"x", "w"}, {"y"});
  m.output("y");
  return m;
}

TEST(OnnxTensor, ExternalData) {
  const TempFolder folder;
  folder.write("model/w.bin", std::string("????\x00\x00\x80\x3f\x00\x00\x00\xc0", 12));
  folder.write("secret.bin", std::string(12, '\0'));
  fs::create_symlink(folder.path / "secret.bin", folder.path / "model/link.bin");
  const auto load = [&](const std::vector<std::pair<std::string, std::string>>& entries) {
    return external_model(entries).parse(folder.path / "model");
  };
  const Graph g = load({{"location", "w.bin"}, {"offset", "4"}, {"length", "8"}});
  EXPECT_EQ(constant_named(g, "w").as<float>()[1], -2.0f);
  EXPECT_NO_THROW(load({{"location", "w.bin"}, {"offset", "4"}}));
  const std::string prefix = "corrupt: load onnx: tensor \"w\": ";
  for (const auto& location : {"../secret.bin", "link.bin", "/etc/hostname", "", "."}) {
    const std::string outcome = failure([&] { load({{"location", location}}); });
    EXPECT_EQ(outcome.rfind(prefix, 0), 0u) << location << ": " << outcome;
  }
  EXPECT_EQ(failure([&] { load({{"location", "none.bin"}}); }).rfind("missing: ", 0), 0u);
  for (const auto& [key, value] : {std::pair{"offset", "8"},
                                   {"offset", "99"},
                                   {"offset", "-1"},
                                   {"length", "7"},
                                   {"length", "18446744073709551615"}}) {
    const std::string outcome = failure([&] { load({{"location", "w.bin"}, {key, value}}); });
    EXPECT_EQ(outcome.rfind(prefix, 0), 0u) << key << value << ": " << outcome;
  }
  EXPECT_EQ(failure([&] {
              external_model({{"location", "w.bin"}}).parse({});
            }).rfind("unsupported: ", 0),
            0u);
}

// ---- graphs
// -----------------------------------------------------------------------------------------

TEST(OnnxGraph, NamesInputsAndOrder) {
  ModelBuilder m;
  m.input("x", {-1, 2});
  m.input("w", {2});                       // IR 3: also an initializer
  m.floats("w", {2}, {1, 2});
  m.node("Relu", {"a"}, {"y"});            // out of order
  m.node("Add", {"x", "w"}, {"a"}).set_name("sum");
  m.node("Neg", {"a"}, {"z"}).set_name("sum");
  m.output("y");
  m.output("z");
  Graph g = m.parse();
  infer_shapes(g);
  EXPECT_EQ(g.inputs.size(), 1u);
  EXPECT_EQ(shape_text(g, g.outputs[0]), "[n, 2]");
  EXPECT_EQ(g.node(g.order()[0]).name, "sum");
  EXPECT_EQ(only(g, OpKind::kNeg).name, "sum_2");
  EXPECT_EQ(only(g, OpKind::kRelu).name, "relu_0");
}

TEST(OnnxGraph, ConstantNodesInEveryForm) {
  ModelBuilder m;
  m.input("x", {2});
  ModelBuilder::fill(
      *attribute(m.node("Constant", {}, {"a"}), "value", onnx::AttributeProto::TENSOR).mutable_t(),
      "", {}, kFloat);
  m.graph().mutable_node(0)->mutable_attribute(0)->mutable_t()->add_float_data(3);
  set_float(m.node("Constant", {}, {"b"}), "value_float", 4);
  set_ints(m.node("Constant", {}, {"c"}), "value_ints", {5, 6});
  set_int(m.node("Constant", {}, {"d"}), "value_int", 7);
  m.node("Sum", {"a", "b", "x"}, {"y"});
  m.output("y");
  const Graph g = m.parse();
  EXPECT_EQ(constant_named(g, "a").as<float>()[0], 3);
  EXPECT_EQ(constant_named(g, "b").rank(), 0);
  EXPECT_EQ(constant_named(g, "c").shape(), Shape{2});
  EXPECT_EQ(constant_named(g, "d").as<int64_t>()[0], 7);
  EXPECT_EQ(g.order().size(), 1u);
}

void add_branch(onnx::NodeProto& node, const std::string& name, const std::string& op,
                const std::string& input) {
  auto& graph = *attribute(node, name, onnx::AttributeProto::GRAPH).mutable_g();
  ModelBuilder::set(*graph.add_node(), op, {input}, {name + "_out"});
  graph.add_output()->set_name(name + "_out");
}

TEST(OnnxGraph, IfWithAKnownConditionIsInlined) {
  for (const bool known_by_shape : {false, true}) {
    ModelBuilder m(13);
    m.input("x", {-1, 1, 4});
    if (known_by_shape) {   // "is dimension 1 of size 1", as exporters guard a Squeeze
      m.integers("one", {1});
      m.integers("axis", {1});
      m.node("Shape", {"x"}, {"shape"});
      m.node("Gather", {"shape", "axis"}, {"size"});
      m.node("Equal", {"size", "one"}, {"cond"});
    } else {
      m.tensor("cond", {}, kBool).add_int32_data(1);
    }
    auto& node = m.node("If", {"cond"}, {"y"});
    add_branch(node, "then_branch", "Relu", "x");
    add_branch(node, "else_branch", "Loop", "x");   // never looked at
    m.output("y");
    const Graph g = m.parse();
    EXPECT_EQ(g.node(g.value(g.outputs[0]).producer).op, OpKind::kRelu);
  }
  ModelBuilder m(13);
  m.input("x", {1});
  m.input("c", {}, kBool);
  auto& node = m.node("If", {"c"}, {"y"});
  add_branch(node, "then_branch", "Relu", "x");
  add_branch(node, "else_branch", "Neg", "x");
  m.output("y");
  EXPECT_EQ(failure([&] { m.parse(); }),
            "unsupported: load onnx: node \"y\" (If, opset 13): expected a condition known at "
            "load, got one that depends on the input");
}

TEST(OnnxGraph, FunctionsAreInlinedWithTheirAttributes) {
  ModelBuilder m(17);
  m.input("x", {3});
  auto& function = *m.model.add_functions();
  function.set_name("Leak");
  function.set_domain("local");
  function.add_input("a");
  function.add_output("r");
  function.add_attribute("slope");
  function.add_opset_import()->set_version(17);
  auto& inner = ModelBuilder::set(*function.add_node(), "LeakyRelu", {"a"}, {"t"});
  auto& alpha = attribute(inner, "alpha", onnx::AttributeProto::FLOAT);
  alpha.set_ref_attr_name("slope");
  ModelBuilder::set(*function.add_node(), "Neg", {"t"}, {"r"});
  for (int i = 0; i < 2; ++i) {
    auto& call = m.node("Leak", {i == 0 ? "x" : "h"}, {i == 0 ? "h" : "y"});
    call.set_domain("local");
    call.set_name(i == 0 ? "one" : "two");
    if (i == 1) set_float(call, "slope", 0.25f);
  }
  m.output("y");
  const Graph g = m.parse();
  ASSERT_EQ(g.order().size(), 4u);
  EXPECT_FALSE(g.node(g.order()[0]).attrs.has("alpha"));
  EXPECT_EQ(only(g, OpKind::kLeakyRelu).attrs.real("alpha", 0), 0.25f);
  EXPECT_EQ(only(g, OpKind::kLeakyRelu).name.rfind("leaky_relu", 0), 0u);

  ModelBuilder::set(*function.add_node(), "Leak", {"r"}, {"again"})
      .set_domain("local");  // calls itself
  EXPECT_EQ(
      failure([&] { m.parse(); }),
      "corrupt: load onnx: graph: expected at most 32 nested branches and functions, got more");
}

// ---- older opsets
// -----------------------------------------------------------------------------------

struct Rewritten {
  Graph graph;
  explicit Rewritten(int64_t opset, const std::vector<int64_t>& shape,
                     const std::function<void(ModelBuilder&)>& build) {
    ModelBuilder m(opset);
    m.input("x", shape);
    build(m);
    m.output("y");
    graph = m.parse();
    infer_shapes(graph);
  }
  std::string shape() const { return shape_text(graph, graph.outputs[0]); }
};

TEST(OnnxOpsets, AttributesBecomeInputs) {
  const Rewritten squeeze(11, {1, 4, 1}, [](ModelBuilder& m) {
    set_ints(m.node("Squeeze", {"x"}, {"y"}), "axes", {2});
  });
  EXPECT_EQ(squeeze.shape(), "[1, 4]");
  EXPECT_FALSE(only(squeeze.graph, OpKind::kSqueeze).attrs.has("axes"));
  const Rewritten unsqueeze(
      11, {4}, [](ModelBuilder& m) { set_ints(m.node("Unsqueeze", {"x"}, {"y"}), "axes", {0}); });
  EXPECT_EQ(unsqueeze.shape(), "[1, 4]");
  for (const char* op : {"ReduceMean", "ReduceSum", "ReduceL2"}) {
    const Rewritten reduce(
        9, {2, 3, 4}, [&](ModelBuilder& m) { set_ints(m.node(op, {"x"}, {"y"}), "axes", {1}); });
    EXPECT_EQ(reduce.shape(), "[2, 1, 4]") << op;
  }
  const Rewritten slice(9, {5, 6}, [](ModelBuilder& m) {
    auto& node = m.node("Slice", {"x"}, {"y"});
    set_ints(node, "starts", {1});
    set_ints(node, "ends", {-1});
    set_ints(node, "axes", {1});
  });
  EXPECT_EQ(slice.shape(), "[5, 4]");
  const Rewritten split(11, {6}, [](ModelBuilder& m) {
    set_ints(m.node("Split", {"x"}, {"y", "z"}), "split", {2, 4});
  });
  EXPECT_EQ(split.shape(), "[2]");
  const Rewritten halves(13, {6}, [](ModelBuilder& m) { m.node("Split", {"x"}, {"y", "z"}); });
  EXPECT_EQ(halves.shape(), "[3]");
  const Rewritten top(9, {6}, [](ModelBuilder& m) {
    set_int(m.node("TopK", {"x"}, {"y", "z"}), "k", 4);
  });
  EXPECT_EQ(top.shape(), "[4]");
  const Rewritten pad(9, {6}, [](ModelBuilder& m) {
    set_ints(m.node("Pad", {"x"}, {"y"}), "pads", {1, 2});
  });
  EXPECT_EQ(pad.shape(), "[9]");
  const Rewritten clip(9, {6},
                       [](ModelBuilder& m) { set_float(m.node("Clip", {"x"}, {"y"}), "max", 6); });
  const Node& node = only(clip.graph, OpKind::kClip);
  ASSERT_EQ(node.inputs.size(), 3u);
  EXPECT_EQ(node.inputs[1], kNoValue);
  EXPECT_EQ(clip.graph.value(node.inputs[2]).constant->as<float>()[0], 6);
}

TEST(OnnxOpsets, SoftmaxOverSeveralAxes) {
  const auto softmax = [](int64_t opset, int64_t axis) {
    return Rewritten(opset, {-1, 3, 4}, [&](ModelBuilder& m) {
      set_int(m.node("Softmax", {"x"}, {"y"}), "axis", axis);
    });
  };
  EXPECT_EQ(softmax(9, 2).graph.order().size(), 1u);
  EXPECT_EQ(only(softmax(9, 2).graph, OpKind::kSoftmax).attrs.integer("axis", 0), -1);
  EXPECT_EQ(softmax(13, 1).graph.order().size(), 1u);
  const Rewritten flat = softmax(11, 1);     // 3 x 4 elements share one sum
  EXPECT_EQ(flat.graph.order().size(), 4u);
  EXPECT_EQ(flat.shape(), "[n, 3, 4]");
  const Node& inner = only(flat.graph, OpKind::kSoftmax);
  EXPECT_EQ(shape_text(flat.graph, inner.inputs[0]), "[n, 12]");
  EXPECT_EQ(inner.attrs.integer("axis", 0), -1);
}

TEST(OnnxOpsets, UpsampleAndOldResize) {
  for (const auto& [op, opset] : {std::pair{"Upsample", 9}, {"Resize", 10}}) {
    const Rewritten up(opset, {1, 2, 3, 3}, [op = op](ModelBuilder& m) {
      m.floats("scales", {4}, {1, 1, 2, 2});
      set_text(m.node(op, {"x", "scales"}, {"y"}), "mode", "nearest");
    });
    EXPECT_EQ(up.shape(), "[1, 2, 6, 6]");
    const Node& node = only(up.graph, OpKind::kResize);
    EXPECT_EQ(node.attrs.text("coordinate_transformation_mode", ""), "asymmetric");
    EXPECT_EQ(node.attrs.text("nearest_mode", ""), "floor");
  }
  const Rewritten sized(11, {1, 2, 3, 3}, [](ModelBuilder& m) {
    m.floats("roi", {0}, {});
    m.floats("scales", {0}, {});
    m.integers("sizes", {1, 2, 5, 7});
    m.node("Resize", {"x", "roi", "scales", "sizes"}, {"y"});
  });
  EXPECT_EQ(sized.shape(), "[1, 2, 5, 7]");
  EXPECT_EQ(only(sized.graph, OpKind::kResize).inputs[2], kNoValue);
}

TEST(OnnxOpsets, InferenceForms) {
  const Rewritten dropout(12, {3}, [](ModelBuilder& m) {
    m.node("Dropout", {"x"}, {"y", "mask"});
  });
  EXPECT_EQ(dropout.graph.node(dropout.graph.value(dropout.graph.outputs[0]).producer).op,
            OpKind::kIdentity);
  const Rewritten swish(
      24, {3}, [](ModelBuilder& m) { set_float(m.node("Swish", {"x"}, {"y"}), "alpha", 1.702f); });
  EXPECT_EQ(swish.graph.order().size(), 3u);
  const Rewritten silu(24, {3}, [](ModelBuilder& m) { m.node("Swish", {"x"}, {"y"}); });
  EXPECT_EQ(only(silu.graph, OpKind::kSilu).inputs.size(), 1u);
  const Rewritten group(18, {1, 6, 2}, [](ModelBuilder& m) {
    m.floats("s", {3}, {1, 2, 3});
    set_int(m.node("GroupNormalization", {"x", "s", "s"}, {"y"}), "num_groups", 3);
  });
  EXPECT_EQ(shape_text(group.graph, only(group.graph, OpKind::kGroupNorm).inputs[1]), "[6]");
  const Rewritten cast(
      13, {3}, [](ModelBuilder& m) { set_int(m.node("Cast", {"x"}, {"y"}), "to", kFloat16); });
  EXPECT_EQ(cast.graph.value(cast.graph.outputs[0]).dtype, DType::kF32);
  EXPECT_EQ(only(cast.graph, OpKind::kCast).attrs.integer("to", 0), kFloat);
}

}  // namespace
}  // namespace repquant
