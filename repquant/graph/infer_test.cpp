#include "repquant/graph/infer.h"

#include <functional>

#include <gtest/gtest.h>

#include "repquant/graph/infer_context.h"
#include "repquant/graph/testing.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;
using graph_testing::shape_text;
using Ints = std::vector<int64_t>;
using enum OpKind;

const SymbolicShape kImage{dim("n"), dim(8), dim("h"), dim(9)};

// The shape of one node's first output; inputs of the graph in order, then extra constants.
std::string shape_of(OpKind op, const std::vector<SymbolicShape>& inputs, Attrs attrs = {},
                     const std::vector<Ints>& constants = {}, size_t output = 0,
                     size_t outputs = 1) {
  GraphBuilder g;
  std::vector<ValueId> ids;
  for (size_t i = 0; i < inputs.size(); ++i)
    ids.push_back(g.input(fmt::format("x{}", i), inputs[i]));
  for (const Ints& c : constants) ids.push_back(g.integers(c));
  const auto made = g.nodes(op, ids, outputs, std::move(attrs));
  g.graph.outputs = {made[0]};
  infer_shapes(g.graph);
  return shape_text(g.graph, made[output]);
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptFile) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(InferShapes, Products) {
  EXPECT_EQ(shape_of(kMatMul, {{dim("n"), dim(3), dim(5), dim(7)}, {dim(7), dim(2)}}),
            "[n, 3, 5, 2]");
  EXPECT_EQ(shape_of(kMatMul, {{dim(7)}, {dim("n"), dim(7), dim(2)}}), "[n, 2]");
  EXPECT_EQ(shape_of(kMatMul, {{dim(7)}, {dim(7)}}), "[]");
  EXPECT_EQ(shape_of(kGemm, {{dim(7), dim("n")}, {dim(2), dim(7)}},
                     attributes({{"transA", int64_t{1}}, {"transB", int64_t{1}}})),
            "[n, 2]");
  EXPECT_EQ(shape_of(kLinear, {{dim("n"), dim("t"), dim(4)}, {dim(6), dim(4)}}), "[n, t, 6]");
  EXPECT_EQ(shape_of(kMultiHeadAttention,
                     {{dim("n"), dim("t"), dim(64)},
                      {dim("n"), dim("s"), dim(32)},
                      {dim("n"), dim("s"), dim(16)}},
                     attributes({{"heads", int64_t{8}}, {"kv_heads", int64_t{4}}})),
            "[n, t, 32]");
  EXPECT_EQ(shape_of(kEinsum, {{dim("n"), dim(3), dim(4)}, {dim(4), dim(5)}},
                     attributes({{"equation", std::string("bij, jk -> bki")}})),
            "[n, 5, 3]");
  EXPECT_EQ(
      shape_of(kOnnxAttention,
               {{dim(2), dim("t"), dim(24)}, {dim(2), dim(9), dim(12)}, {dim(2), dim(9), dim(10)}},
               attributes({{"q_num_heads", int64_t{4}}, {"kv_num_heads", int64_t{2}}})),
      "[2, t, 20]");
}

TEST(InferShapes, Windows) {
  const SymbolicShape weight{dim(16), dim(8), dim(3), dim(3)};
  EXPECT_EQ(shape_of(kConv, {kImage, weight}, attributes({{"pads", Ints{1, 1, 1, 1}}})),
            "[n, 16, h, 9]");
  EXPECT_EQ(shape_of(kConv, {kImage, weight},
                     attributes({{"pads", Ints{1, 0, 1, 0}}, {"strides", Ints{2, 2}}})),
            "[n, 16, (floor((h-1)/2)+1), 4]");
  EXPECT_EQ(
      shape_of(kConv, {kImage, weight},
               attributes({{"auto_pad", std::string("SAME_UPPER")}, {"strides", Ints{1, 2}}})),
      "[n, 16, h, 5]");
  EXPECT_EQ(shape_of(kConv, {kImage, weight}, attributes({{"dilations", Ints{2, 3}}})),
            "[n, 16, (h-4), 3]");
  EXPECT_EQ(shape_of(kConvTranspose, {kImage, {dim(8), dim(5), dim(2), dim(2)}},
                     attributes({{"strides", Ints{2, 2}}})),
            "[n, 5, 2*h, 18]");
  EXPECT_EQ(shape_of(kMaxPool, {kImage},
                     attributes({{"kernel_shape", Ints{2, 2}},
                                 {"strides", Ints{2, 2}},
                                 {"ceil_mode", int64_t{1}}})),
            "[n, 8, (floor((h-1)/2)+1), 5]");
  // Ceil mode opens no window that begins in the right padding: ceil((4 + 2 - 2) / 3) + 1 = 3
  // without the rule, but the third begins at 6 > 4 + 1 - 1.
  EXPECT_EQ(shape_of(kAveragePool, {{dim(1), dim(1), dim(4)}},
                     attributes({{"kernel_shape", Ints{2}},
                                 {"strides", Ints{3}},
                                 {"pads", Ints{1, 1}},
                                 {"ceil_mode", int64_t{1}}})),
            "[1, 1, 2]");
  EXPECT_EQ(shape_of(kGlobalAveragePool, {kImage}), "[n, 8, 1, 1]");
  EXPECT_EQ(shape_of(kDepthToSpace, {kImage}, attributes({{"blocksize", int64_t{2}}})),
            "[n, 2, 2*h, 18]");
  EXPECT_EQ(shape_of(kSpaceToDepth, {{dim(1), dim(1), dim(4), dim(6)}},
                     attributes({{"blocksize", int64_t{2}}})),
            "[1, 4, 2, 3]");
}

TEST(InferShapes, Resize) {
  GraphBuilder g;
  const ValueId x = g.input("x", kImage);
  const ValueId scales = g.floats("scales", {4}, {1, 1, 2, 1.5f});
  const ValueId y = g.node(kResize, {x, kNoValue, scales});
  const ValueId z = g.node(kResize, {x, kNoValue, kNoValue, g.integers({3, 4})},
                           attributes({{"axes", Ints{2, 3}}}));
  infer_shapes(g.graph);
  EXPECT_EQ(shape_text(g.graph, y), "[n, 8, 2*h, 13]");
  EXPECT_EQ(shape_text(g.graph, z), "[n, 8, 3, 4]");
}

TEST(InferShapes, Movement) {
  EXPECT_EQ(shape_of(kReshape, {kImage}, {}, {{0, -1, 9}}), "[n, 8*h, 9]");
  EXPECT_EQ(shape_of(kReshape, {{dim("n"), dim(196), dim(192)}},
                     attributes({{"allowzero", int64_t{1}}}), {{-1, 196, 3, 64}}),
            "[n, 196, 3, 64]");
  EXPECT_EQ(shape_of(kReshape, {{Dim{}, dim(6)}}, {}, {{0, 2, -1}}),
            "[?, 2, 3]");  // the copied one cancels
  EXPECT_EQ(shape_of(kReshape, {{Dim{}, dim(6)}}, {}, {{-1}}), "[?]");
  EXPECT_EQ(shape_of(kTranspose, {kImage}, attributes({{"perm", Ints{0, 2, 3, 1}}})),
            "[n, h, 9, 8]");
  EXPECT_EQ(shape_of(kTranspose, {kImage}), "[9, h, 8, n]");
  EXPECT_EQ(shape_of(kFlatten, {kImage}, attributes({{"axis", int64_t{-1}}})), "[8*h*n, 9]");
  EXPECT_EQ(shape_of(kSqueeze, {{dim(1), dim("n"), dim(1)}}, {}, {{-1}}), "[1, n]");
  EXPECT_EQ(shape_of(kSqueeze, {{dim(1), dim("n"), dim(1)}}), "unknown");
  EXPECT_EQ(shape_of(kUnsqueeze, {{dim("n")}}, {}, {{0, -1}}), "[1, n, 1]");
  EXPECT_EQ(shape_of(kConcat, {{dim("n"), dim(1), dim(4)}, {dim("n"), dim("t"), dim(4)}},
                     attributes({{"axis", int64_t{1}}})),
            "[n, (t+1), 4]");
  EXPECT_EQ(shape_of(kExpand, {{dim(1), dim(1), dim(4)}}, {}, {{5, 1, 3, 1}}), "[5, 1, 3, 4]");
  EXPECT_EQ(shape_of(kTile, {{dim("n"), dim(2)}}, {}, {{3, 2}}), "[3*n, 4]");
  EXPECT_EQ(shape_of(kPad, {kImage}, {}, {{0, 0, 1, -2, 0, 0, 1, 0}}), "[n, 8, (h+2), 7]");
}

TEST(InferShapes, Indexing) {
  EXPECT_EQ(shape_of(kGather, {{dim(10), dim(64)}, {dim("n"), dim("t")}}), "[n, t, 64]");
  EXPECT_EQ(shape_of(kGather, {kImage, {}}, attributes({{"axis", int64_t{1}}})), "[n, h, 9]");
  EXPECT_EQ(shape_of(kGatherND, {{dim(3), dim(4), dim(5)}, {dim(7), dim(2)}}), "[7, 5]");
  EXPECT_EQ(shape_of(kSlice, {kImage}, {}, {{0, 1}, {INT64_MAX, -1}, {0, 3}}), "[n, 8, h, 7]");
  EXPECT_EQ(shape_of(kSlice, {{dim(10)}}, {}, {{-1}, {-100}, {0}, {-3}}), "[4]");
  EXPECT_EQ(shape_of(kSlice, {{dim(10)}}, {}, {{8}, {3}, {0}}), "[0]");
  EXPECT_EQ(shape_of(kSlice, {{dim("n")}}, {}, {{-1}, {INT64_MAX}, {0}}), "[1]");
  EXPECT_EQ(shape_of(kSlice, {{dim("n")}}, {}, {{2}, {7}, {0}}), "[?]");
  EXPECT_EQ(shape_of(kSplit, {{dim("n"), dim(7)}},
                     attributes({{"axis", int64_t{1}}, {"num_outputs", int64_t{3}}}), {}, 2, 3),
            "[n, 1]");
  EXPECT_EQ(
      shape_of(kSplit, {{dim("n"), dim(7)}}, attributes({{"axis", int64_t{1}}}), {{2, 5}}, 1, 2),
      "[n, 5]");
  EXPECT_EQ(shape_of(kTopK, {{dim("n"), dim(7)}}, {}, {{3}}, 1, 2), "[n, 3]");
  EXPECT_EQ(shape_of(kReduceMean, {kImage}, {}, {{2, -1}}), "[n, 8, 1, 1]");
  EXPECT_EQ(shape_of(kReduceSum, {kImage}, attributes({{"keepdims", int64_t{0}}})), "[]");
  EXPECT_EQ(shape_of(kReduceSum, {kImage}, attributes({{"noop_with_empty_axes", int64_t{1}}})),
            "[n, 8, h, 9]");
  EXPECT_EQ(
      shape_of(kArgMax, {kImage}, attributes({{"axis", int64_t{1}}, {"keepdims", int64_t{0}}})),
      "[n, h, 9]");
  EXPECT_EQ(shape_of(kNonZero, {kImage}), "[4, ?]");
}

// Shape -> Gather -> arithmetic -> Concat -> Reshape, as exporters write a free batch.
TEST(InferShapes, FollowsShapeTensors) {
  GraphBuilder g;
  const ValueId x = g.input("x", {dim("n"), dim(197), dim(192)});
  const ValueId shape = g.node(kShape, {x});
  const ValueId n = g.node(kGather, {shape, g.integer(0)});
  const ValueId t = g.node(kGather, {shape, g.integers({1})});
  const ValueId c = g.node(kGather, {shape, g.integer(-1)});
  const ValueId d =
      g.node(kCast, {g.node(kDiv, {c, g.integer(3)})}, attributes({{"to", int64_t{7}}}));
  const ValueId target = g.node(kConcat,
                                {g.node(kUnsqueeze, {n, g.integers({0})}), t, g.integers({3}),
                                 g.node(kUnsqueeze, {d, g.integers({0})})},
                                attributes({{"axis", int64_t{0}}}));
  const ValueId y = g.node(kReshape, {x, target});
  const ValueId minus = g.node(kEqual, {target, g.integers({-1})});
  const ValueId range = g.node(kRange, {g.integer(0), n, g.integer(1)});
  infer_shapes(g.graph);
  EXPECT_EQ(shape_text(g.graph, y), "[n, 197, 3, 64]");
  EXPECT_EQ(shape_text(g.graph, range), "[n]");
  EXPECT_EQ(known_integers(g.graph, c), Ints{192});
  EXPECT_EQ(known_integers(g.graph, n), std::nullopt);
  EXPECT_EQ(known_integers(g.graph, minus), (Ints{0, 0, 0, 0}));   // a dimension is not negative
}

TEST(InferShapes, ElementTypes) {
  GraphBuilder g;
  const ValueId x = g.input("x", {dim(3)});
  const ValueId cast = g.node(kCast, {x}, attributes({{"to", int64_t{6}}}));
  const ValueId less = g.node(kLess, {cast, cast});
  const ValueId pick = g.node(kWhere, {less, x, x});
  const auto quantized = g.nodes(kDynamicQuantizeLinear, {x}, 3);
  infer_shapes(g.graph);
  const auto type = [&](ValueId id) { return g.graph.value(id).dtype; };
  EXPECT_EQ(type(cast), DType::kI32);
  EXPECT_EQ(type(less), DType::kBool);
  EXPECT_EQ(type(pick), DType::kF32);
  EXPECT_EQ(type(quantized[0]), DType::kU8);
  EXPECT_EQ(type(quantized[1]), DType::kF32);
}

TEST(InferShapes, UnknownStaysUnknown) {
  GraphBuilder g;
  const ValueId x = g.graph.add_value({});
  g.graph.inputs = {x};
  const ValueId y = g.node(kAdd, {x, g.floats("one", {1}, {1})});
  const ValueId z = g.node(kReshape, {y, g.integers({2, -1})});
  infer_shapes(g.graph);
  EXPECT_EQ(shape_text(g.graph, y), "unknown");
  EXPECT_EQ(shape_text(g.graph, z), "[2, ?]");
}

TEST(InferShapes, ContradictionsNameTheNode) {
  const auto message = [](OpKind op, const std::vector<SymbolicShape>& inputs, Attrs attrs = {},
                          const std::vector<Ints>& constants = {}) {
    return error_of([&] { shape_of(op, inputs, attrs, constants); });
  };
  EXPECT_EQ(
      message(kMatMul, {{dim(2), dim(3)}, {dim(4), dim(5)}}),
      "infer shapes: node \"n0\" (matmul): expected equal inner sizes, got [2, 3] and [4, 5]");
  for (const std::string& text :
       {message(kAdd, {{dim(2)}, {dim(3)}}), message(kReshape, {{dim(2), dim(3)}}, {}, {{4, -1}}),
        message(kReshape, {{dim(6)}}, {}, {{7}}), message(kReshape, {{dim(6)}}, {}, {{-1, -1}}),
        message(kConcat, {{dim(2), dim(3)}, {dim(3), dim(3)}}, attributes({{"axis", int64_t{1}}})),
        message(kTranspose, {{dim(2), dim(3)}}, attributes({{"perm", Ints{0, 0}}})),
        message(kSqueeze, {{dim(2)}}, {}, {{0}}),
        message(kGather, {{dim(2)}, {dim(2)}}, attributes({{"axis", int64_t{4}}})),
        message(kConv, {kImage, {dim(4), dim(3), dim(3), dim(3)}}),
        message(kConv, {kImage, {dim(4), dim(8), dim(3), dim(3)}},
                attributes({{"strides", Ints{0, 1}}})),
        message(kConv, {{dim(1), dim(8), dim(2), dim(2)}, {dim(4), dim(8), dim(3), dim(3)}}),
        message(kSplit, {{dim(4)}}, {}, {{9}}),
        message(kSlice, {{dim(4)}}, {}, {{0}, {1}, {0}, {0}}),
        message(kReduceMean, {{dim(4)}}, {}, {{1}}),
        message(kTile, {{dim(INT64_MAX / 2)}}, {}, {{INT64_MAX / 2}}),
        message(kExpand, {{dim(1)}}, {}, {{INT64_MAX / 4, INT64_MAX / 4}})}) {
    EXPECT_EQ(text.rfind("infer shapes: node \"n0\"", 0), 0u) << text;
  }
}

}  // namespace
}  // namespace repquant
