#include "repquant/graph/graph.h"

#include <algorithm>
#include <functional>
#include <set>

#include <gtest/gtest.h>

#include "repquant/graph/quant_plan.h"
#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;

ErrorCode code_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kInternal;
}

TEST(Ops, NamesAreUniqueAndOnnxNamesFindTheirOp) {
  std::set<std::string> names;
  for (const auto& onnx : supported_onnx_ops()) {
    const auto op = op_from_onnx(onnx);
    ASSERT_TRUE(op.has_value()) << onnx;
    EXPECT_TRUE(names.insert(std::string(name_of(*op))).second) << onnx;
  }
  EXPECT_TRUE(std::is_sorted(supported_onnx_ops().begin(), supported_onnx_ops().end()));
  EXPECT_EQ(op_from_onnx("LayerNormalization"), OpKind::kLayerNorm);
  EXPECT_EQ(op_from_onnx("Loop"), std::nullopt);
  EXPECT_EQ(op_from_onnx(""), std::nullopt);
  EXPECT_EQ(name_of(OpKind::kMultiHeadAttention), "multi_head_attention");
}

TEST(Attrs, ConvertAndRefuse) {
  const Attrs a = attributes({{"i", int64_t{3}},
                              {"f", 0.5f},
                              {"s", std::string("x")},
                              {"is", std::vector<int64_t>{1, 2}}});
  EXPECT_EQ(a.integer("i", 0), 3);
  EXPECT_EQ(a.integer("absent", 7), 7);
  EXPECT_EQ(a.real("f", 0), 0.5f);
  EXPECT_EQ(a.real("i", 0), 3.0f);
  EXPECT_EQ(a.integers("is"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(a.integers("i"), (std::vector<int64_t>{3}));
  EXPECT_EQ(a.tensor("absent"), nullptr);
  EXPECT_EQ(code_of([&] { a.integer("s", 0); }), ErrorCode::kCorruptFile);
  EXPECT_EQ(code_of([&] { a.text("i", ""); }), ErrorCode::kCorruptFile);
  EXPECT_EQ(code_of([&] { a.tensor("i"); }), ErrorCode::kCorruptFile);
}

// x -> relu -> (neg, abs) -> add
struct Diamond : GraphBuilder {
  ValueId x = input("x", {dim("batch"), dim(4)});
  ValueId a = node(OpKind::kRelu, {x}, {}, "a");
  ValueId b = node(OpKind::kNeg, {a}, {}, "b");
  ValueId c = node(OpKind::kAbs, {a}, {}, "c");
  ValueId d = node(OpKind::kAdd, {b, c}, {}, "d");
  Diamond() { graph.outputs = {d}; }
  NodeId made(ValueId id) const { return graph.value(id).producer; }
};

TEST(Graph, IdsStayValidAcrossEdits) {
  Diamond g;
  g.graph.verify();
  EXPECT_EQ(g.graph.consumers(g.a), (std::vector<NodeId>{g.made(g.b), g.made(g.c)}));
  const NodeId last = g.made(g.d);
  g.graph.replace_uses(g.c, g.a);       // d = b + a
  g.graph.remove_dead();                // c goes
  EXPECT_FALSE(g.graph.alive(g.made(g.b) + 1));
  EXPECT_EQ(g.graph.value(g.c).producer, -1);
  EXPECT_TRUE(g.graph.alive(last));
  EXPECT_EQ(g.graph.node(last).name, "d");
  g.graph.verify();
}

TEST(Graph, InsertsBeforeANode) {
  Diamond g;
  Node node;
  node.op = OpKind::kExp;
  node.name = "e";
  node.inputs = {g.a};
  node.outputs = {g.graph.add_value({})};
  const ValueId made = node.outputs[0];
  g.graph.add_node(std::move(node), g.made(g.d));
  g.graph.node(g.made(g.d)).inputs[0] = made;
  g.graph.verify();
  EXPECT_EQ(g.graph.order()[3], g.made(made));
}

TEST(Graph, SortIsStableAndFindsCycles) {
  Diamond g;
  const std::vector<NodeId> order = g.graph.order();
  g.graph.sort();
  EXPECT_EQ(g.graph.order(), order);
  g.graph.node(g.made(g.a)).inputs[0] = g.d;
  try {
    g.graph.sort();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptFile);
    EXPECT_NE(std::string(error.what()).find("\"a\""), std::string::npos) << error.what();
  }
}

TEST(Graph, SortRestoresAnOrder) {
  GraphBuilder g;
  const ValueId x = g.input("x", {dim(1)});
  const ValueId later = g.graph.add_value({});
  const ValueId first = g.node(OpKind::kRelu, {later}, {}, "second");
  Node node;
  node.op = OpKind::kNeg;
  node.name = "first";
  node.inputs = {x};
  node.outputs = {later};
  g.graph.add_node(std::move(node));
  g.graph.outputs = {first};
  EXPECT_EQ(code_of([&] { g.graph.verify(); }), ErrorCode::kInternal);
  g.graph.sort();
  g.graph.verify();
  EXPECT_EQ(g.graph.node(g.graph.order()[0]).name, "first");
}

TEST(Graph, VerifyNamesWhatIsBroken) {
  const auto broken = [](const std::function<void(Diamond&)>& harm) {
    Diamond g;
    harm(g);
    return code_of([&] { g.graph.verify(); });
  };
  EXPECT_EQ(broken([](Diamond& g) { g.graph.node(g.made(g.b)).name = "a"; }), ErrorCode::kInternal);
  EXPECT_EQ(broken([](Diamond& g) { g.graph.node(g.made(g.d)).inputs.pop_back(); }),
            ErrorCode::kInternal);
  EXPECT_EQ(broken([](Diamond& g) { g.graph.node(g.made(g.d)).inputs[0] = kNoValue; }),
            ErrorCode::kInternal);
  EXPECT_EQ(broken([](Diamond& g) { g.graph.remove_node(g.made(g.a)); }), ErrorCode::kInternal);
  EXPECT_EQ(broken([](Diamond& g) { g.graph.outputs = {g.graph.add_value({})}; }),
            ErrorCode::kInternal);
  EXPECT_EQ(broken([](Diamond& g) { g.graph.inputs.push_back(g.a); }), ErrorCode::kInternal);
}

TEST(Graph, RemoveDeadDropsUnreadConstants) {
  Diamond g;
  const ValueId unread = g.floats("w", {2}, {1, 2});
  g.graph.remove_dead();
  EXPECT_FALSE(g.graph.is_constant(unread));
  EXPECT_EQ(g.graph.value(unread).name, "w");
  EXPECT_EQ(g.graph.order().size(), 4u);
}

TEST(Graph, PrintsOneLineANode) {
  GraphBuilder g;
  g.graph.name = "tiny";
  g.graph.opset = 20;
  const ValueId x = g.input("x", {dim("batch"), dim(4)});
  const ValueId w = g.floats("fc.weight", {3, 4}, std::vector<float>(12, 0.5f));
  g.graph.outputs = {g.node(OpKind::kLinear, {x, w}, {}, "fc")};
  const ValueId y = g.node(OpKind::kTranspose, {g.graph.outputs[0]},
                           attributes({{"perm", std::vector<int64_t>{1, 0}}}), "t");
  g.graph.outputs = {y};
  infer_shapes(g.graph);
  EXPECT_EQ(print(g.graph),
            "graph \"tiny\" (opset 20): 2 nodes, 12 parameters\n"
            "  input %x F32[batch, 4]\n"
            "  fc = linear(%x, @fc.weight F32[3, 4]) -> %fc.0 F32[batch, 3]\n"
            "  t = transpose(%fc.0) {perm=[1, 0]} -> %t.0 F32[3, batch]\n"
            "  output %t.0 F32[3, batch]\n");
}

TEST(QuantPlan, SitesHaveReadableNames) {
  GraphBuilder g;
  const ValueId x = g.input("x", {dim(2), dim(4)});
  const ValueId w = g.floats("w", {4, 4}, std::vector<float>(16));
  const ValueId q = g.node(OpKind::kLinear, {x, w}, {}, "q");
  const ValueId m = g.node(OpKind::kMatMul, {q, w}, {}, "m");
  const ValueId a = g.node(OpKind::kMultiHeadAttention, {q, q, m}, {}, "attn");
  const ValueId s = g.node(OpKind::kAdd, {a, q}, {}, "sum");
  const auto name = [&](ValueId id, int input) {
    return site_name(g.graph, {g.graph.value(id).producer, input});
  };
  EXPECT_EQ(name(q, 0), "q:input");
  EXPECT_EQ(name(q, 1), "q:weight");
  EXPECT_EQ(name(m, 0), "m:input");
  EXPECT_EQ(name(m, 1), "m:weight");
  EXPECT_EQ(name(a, 2), "attn:v");
  EXPECT_EQ(name(a, kProbabilities), "attn:probabilities");
  EXPECT_EQ(name(s, 1), "sum:input1");
}

}  // namespace
}  // namespace repquant
