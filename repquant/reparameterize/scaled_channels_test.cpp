#include "repquant/reparameterize/scaled_channels.h"

#include <gtest/gtest.h>

#include "repquant/graph/testing.h"
#include "repquant/reparameterize/fold.h"

namespace repquant::reparameterize {
namespace {

using graph_testing::attributes;
using graph_testing::dim;

// x * a + b -> a convolution of 6 channels.
struct Network : graph_testing::GraphBuilder {
  NodeId mul = -1, layer = -1;
  Workspace ws;

  explicit Network(bool depthwise, bool by_channel, bool second_reader = false) {
    torch::manual_seed(4);
    const auto constant = [&](const std::string& name, Shape shape) {
      const at::Tensor values = at::randn(shape).contiguous();
      const float* data = values.const_data_ptr<float>();
      return floats(name, std::move(shape), {data, data + values.numel()});
    };
    const Shape one = by_channel ? Shape{6, 1, 1} : Shape{};
    const ValueId x = input("x", {dim("batch"), dim(6), dim(5), dim(5)});
    const ValueId scaled = node(OpKind::kMul, {constant("a", one), x}, {}, "mul");
    const ValueId shifted = node(OpKind::kAdd, {scaled, constant("b", one)}, {}, "add");
    const int64_t groups = depthwise ? 6 : 1;
    graph.outputs = {node(OpKind::kConv,
                          {shifted, constant("w", {6, 6 / groups, 3, 3}), constant("c", {6})},
                          attributes({{"kernel_shape", std::vector<int64_t>{3, 3}},
                                      {"pads", std::vector<int64_t>{1, 1, 1, 1}},
                                      {"strides", std::vector<int64_t>{1, 1}},
                                      {"group", groups}}),
                          "conv")};
    if (second_reader) graph.outputs.push_back(node(OpKind::kRelu, {shifted}, {}, "relu"));
    infer_shapes(graph);
    ws = make_workspace(std::move(graph));
    make_parameters_explicit(ws);
    for (const NodeId id : ws.graph.order()) {
      if (ws.graph.node(id).op == OpKind::kMul) mul = id;
      if (ws.graph.node(id).op == OpKind::kConv) layer = id;
    }
    for (const int i : {0, 1})
      ws.targets[{layer, i}] = {i == 0 ? Role::kActivation : Role::kWeight, 8, "auto", false};
  }
};

// Channels 1 to 30 in size: what the layer puts out stays, what it reads comes together.
TEST(ScaledChannels, LayersPutOutWhatTheyDid) {
  at::set_num_threads(1);
  for (const int variant : {1, 3}) {
    Network net(true, (variant & 2) != 0);
    ThreadPool pool(1);
    net.ws.pool = &pool;
    const at::Tensor spread = at::logspace(0, 1.5, 6).reshape({1, 6, 1, 1});
    const at::Tensor x = at::randn({8, 6, 5, 5}) * spread;
    const auto site = scaled_channels(net.ws, net.mul);
    ASSERT_TRUE(site.has_value()) << variant;
    const observe::Block block{"all", net.ws.graph.order(), net.ws.graph.inputs[0],
                               net.ws.graph.outputs[0]};
    const observe::Chunks inputs{x};
    observe::BlockWalk walk(net.ws, net.ws.weights, block, inputs, {});
    const auto outputs = [&](const SiteHook& hook) {
      return Interpreter(net.ws.graph, net.ws.weights).run(std::vector<at::Tensor>{x}, hook)[0];
    };
    at::Tensor read;
    const SiteHook seen = [&](const Site& at, const at::Tensor& t) {
      if (at == Site{net.layer, 0}) read = t;
      return t;
    };
    const at::Tensor before = outputs(seen);
    const auto sizes = [&] { return read.abs().amax({0, 2, 3}); };
    const at::Tensor found = channel_sizes(net.ws, walk, *site);
    EXPECT_TRUE(at::equal(found.to(at::kFloat), sizes())) << variant;
    const double uneven = (sizes().max() / sizes().min()).item<double>();
    equalise_channels(net.ws, *site, found);
    const at::Tensor after = outputs(seen);
    const double even = (sizes().max() / sizes().min()).item<double>();
    EXPECT_GT(uneven, 2) << variant;
    EXPECT_LT(even, 1.001) << variant;
    // Constants and weights are rounded once more: 54 products of magnitudes summed below.
    const at::Tensor bound = after.abs().max() * 54 * std::exp2(-22);
    EXPECT_LE((after - before).abs().max().item<double>(), bound.item<double>()) << variant;
    EXPECT_GT((after - before).abs().max().item<double>(), 0) << variant;
  }
}

// One number for the product and the sum, which becomes one a channel for each.
TEST(ScaledChannels, OwnConstantsGrowWithoutNewOnes) {
  at::set_num_threads(1);
  graph_testing::GraphBuilder g;
  const ValueId x = g.input("x", {dim("batch"), dim(5), dim(6)}), one = g.floats("one", {}, {1.5f});
  const ValueId read = g.node(OpKind::kAdd, {g.node(OpKind::kMul, {x, one}, {}, "mul"), one});
  std::vector<float> w(24);
  for (size_t i = 0; i < w.size(); ++i) w[i] = 0.1f * static_cast<float>(i % 7) - 0.25f;
  g.graph.outputs = {g.node(OpKind::kLinear, {read, g.floats("w", {4, 6}, w)}, {}, "linear")};
  infer_shapes(g.graph);
  Workspace ws = make_workspace(std::move(g.graph));
  make_parameters_explicit(ws);
  ThreadPool pool(1);
  ws.pool = &pool;
  const std::vector<NodeId> order = ws.graph.order();
  for (const int i : {0, 1})
    ws.targets[{order[2], i}] = {i == 0 ? Role::kActivation : Role::kWeight, 8, "auto", false};
  torch::manual_seed(4);
  const at::Tensor batch = at::randn({8, 5, 6}) * at::logspace(0, 1.5, 6);
  const observe::Block block{"all", order, ws.graph.inputs[0], ws.graph.outputs[0]};
  const observe::Chunks inputs{batch};
  const auto output = [&] {
    return Interpreter(ws.graph, ws.weights).run(std::vector<at::Tensor>{batch})[0];
  };
  own_constants(ws);
  const at::Tensor before = output();
  const at::Tensor magnitude =
      at::matmul(batch.abs() * 1.5 + 1.5, ws.constant(order[2], 1).abs().t());
  const size_t constants = ws.weights.size();
  const auto site = scaled_channels(ws, order[0]);
  ASSERT_TRUE(site.has_value());
  observe::BlockWalk walk(ws, ws.weights, block, inputs, {});
  equalise_channels(ws, *site, channel_sizes(ws, walk, *site));
  EXPECT_EQ(ws.weights.size(), constants);
  store_weights(ws);
  for (const int node : {0, 1}) {
    const ValueId id = ws.graph.node(order[static_cast<size_t>(node)]).inputs[1];
    EXPECT_EQ(ws.constant(id).sizes(), at::IntArrayRef({6}));
    EXPECT_EQ(to_string(*ws.graph.value(id).shape), "[6]");
  }
  // A product and a sum of one term more than six of them, twice, and three constants: 23
  // roundings.
  EXPECT_TRUE(((output() - before).abs() <= magnitude * (24 * std::exp2(-24))).all().item<bool>());
}

TEST(ScaledChannels, EveryReaderHasToBeAQuantizedLayerOfItsChannels) {
  Network mixes(false, true);
  EXPECT_FALSE(scaled_channels(mixes.ws, mixes.mul).has_value());
  Network read_twice(true, true, true);
  EXPECT_FALSE(scaled_channels(read_twice.ws, read_twice.mul).has_value());
  Network in_float(true, true);
  in_float.ws.targets.clear();
  EXPECT_FALSE(scaled_channels(in_float.ws, in_float.mul).has_value());
}

}  // namespace
}  // namespace repquant::reparameterize
