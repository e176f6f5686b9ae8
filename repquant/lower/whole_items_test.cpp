#include "repquant/lower/whole_items.h"

#include <cstring>
#include <numeric>

#include <gtest/gtest.h>

#include "repquant/core/error.h"
#include "repquant/graph/reference/reference.h"
#include "repquant/graph/testing.h"

namespace repquant::lowering {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;
using enum OpKind;

// Windows on the leading axis, parts taken from it and joined along it, means and norms over axes
// counted from the front.
struct Windows : GraphBuilder {
  Windows() {
    const ValueId x = input("x", {dim(1), dim(4), dim(6)});
    const ValueId turned = node(kTranspose, {node(kReshape, {x, integers({1, 2, 2, 6})})},
                                attributes({{"perm", std::vector<int64_t>{2, 0, 1, 3}}}));
    const ValueId parts = node(kReshape, {turned, integers({2, 12})});
    const auto part = [&](int64_t i) {
      return node(kSlice, {parts, integers({i}), integers({i + 1}), integers({0})});
    };
    const ValueId swapped = node(kConcat, {part(1), part(0)}, attributes({{"axis", int64_t{0}}}));
    const ValueId wide = node(kUnsqueeze, {swapped, integers({1})});
    const ValueId grown = node(kExpand, {wide, integers({2, 3, 12})});
    const ValueId scaled =
        node(kMul, {grown, floats("factor", {2, 1, 12}, std::vector<float>(24, 0.5f))});
    const ValueId mean =
        node(kReduceMean, {scaled, integers({1})}, attributes({{"keepdims", int64_t{0}}}));
    const ValueId p = node(kSoftmax, {mean}, attributes({{"axis", int64_t{1}}}));
    graph.outputs = {node(kReshape, {p, integers({1, 24})})};
    infer_shapes(graph);
  }
};

Tensor answer(const Graph& graph, const Tensor& x) {
  reference::Bindings values;
  values[graph.inputs[0]] = x;
  EXPECT_TRUE(reference::evaluate(graph, graph.order(), values));
  return values.at(graph.outputs[0]);
}

TEST(WholeItems, EveryItemOfABatchIsAnsweredAlone) {
  const Windows windows;
  ASSERT_TRUE(needs_batch_axis(windows.graph));
  const Graph free = with_batch_axis(windows.graph);
  free.verify();
  EXPECT_FALSE(needs_batch_axis(free));
  std::vector<float> both(48);
  for (size_t i = 0; i < both.size(); ++i) both[i] = static_cast<float>((i * 7) % 11) - 5.0f;
  const Tensor got = answer(free, Tensor::of<float>({2, 4, 6}, both));
  ASSERT_EQ(got.shape(), (Shape{2, 24}));
  for (size_t item = 0; item < 2; ++item) {
    const std::vector<float> one(both.begin() + static_cast<std::ptrdiff_t>(24 * item),
                                 both.begin() + static_cast<std::ptrdiff_t>(24 * item + 24));
    const Tensor want = answer(windows.graph, Tensor::of<float>({1, 4, 6}, one));
    EXPECT_EQ(std::memcmp(want.data(), got.as<float>().data() + 24 * item, want.bytes()), 0)
        << item;
  }
}

TEST(WholeItems, FreeBatchesAndWholeBatchesOfOneAreLeft) {
  GraphBuilder open;
  open.graph.outputs = {open.node(kRelu, {open.input("x", {dim("batch"), dim(3)})})};
  infer_shapes(open.graph);
  EXPECT_FALSE(needs_batch_axis(open.graph));
  GraphBuilder one;
  one.graph.outputs = {one.node(kRelu, {one.input("x", {dim(1), dim(3)})})};
  infer_shapes(one.graph);
  EXPECT_FALSE(needs_batch_axis(one.graph));
}

}  // namespace
}  // namespace repquant::lowering
