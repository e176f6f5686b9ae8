// Small convolution networks of the forms that super-resolution, detection and diffusion models
// have, through calibration, lowering, simulator and every instruction set.
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "repquant/graph/conv_transpose.h"
#include "repquant/graph/fold_constants.h"
#include "repquant/graph/recognise/recognise.h"
#include "repquant/graph/testing.h"
#include "repquant/lower/lower.h"
#include "repquant/methods/testing.h"
#include "repquant/runtime/session.h"
#include "repquant/simulate/simulate.h"

namespace repquant {
namespace {

using graph_testing::attributes;
using graph_testing::dim;
using graph_testing::GraphBuilder;

class Network : public GraphBuilder {
 public:
  explicit Network(Shape image) {
    SymbolicShape shape{dim("batch")};
    for (const int64_t size : image) shape.push_back(dim(size));
    x = input("image", std::move(shape));
    torch::manual_seed(3);
  }

  ValueId weights(const std::string& name, Shape shape, float deviation, float mean = 0.0f) {
    const at::Tensor values = at::randn(shape) * deviation + mean;
    const float* data = values.const_data_ptr<float>();
    return floats(name, std::move(shape), {data, data + values.numel()});
  }
  ValueId conv(const std::string& name, ValueId in, int64_t n, int64_t c, int64_t k, int64_t stride,
               int64_t group = 1) {
    const float deviation = 1.4f / std::sqrt(static_cast<float>(c / group * k * k));
    const std::vector<ValueId> inputs{
        in, weights(fmt::format("{}.weight", name), {n, c / group, k, k}, deviation),
        weights(fmt::format("{}.bias", name), {n}, 0.1f)};
    const int64_t pad = k / 2;
    return node(OpKind::kConv, inputs,
                attributes({{"kernel_shape", std::vector<int64_t>{k, k}},
                            {"strides", std::vector<int64_t>{stride, stride}},
                            {"pads", std::vector<int64_t>{pad, pad, pad, pad}},
                            {"group", group}}),
                name);
  }
  ValueId one(OpKind op, ValueId in, Attrs attrs = {}) { return node(op, {in}, std::move(attrs)); }
  ValueId mean(ValueId in) {
    return node(OpKind::kReduceMean, {in, integers({2, 3})},
                attributes({{"keepdims", int64_t{1}}}));
  }
  ValueId scalar(float value) {
    return graph.add_constant(fmt::format("s{}", graph.value_count()),
                              Tensor::scalar<float>(value));
  }

  Workspace finish(ThreadPool& pool, ValueId output) {
    graph.outputs = {output};
    infer_shapes(graph);
    recognise(graph);
    rewrite_conv_transpose(graph);
    infer_shapes(graph);
    const auto& shape = *graph.value(graph.inputs[0]).shape;
    Workspace ws = make_workspace(std::move(graph));
    const at::Tensor images =
        at::randn({12, shape[1].size, shape[2].size, shape[3].size}).contiguous();
    ws.calibration = {
        12, [images](int64_t b, int64_t e) { return images.slice(0, b, e).contiguous(); }};
    ws.pool = &pool;
    make_parameters_explicit(ws);
    ws.reference = ws.weights;
    testing::fill_targets(ws, 8, 8);
    return ws;
  }

  ValueId x = kNoValue;
};

// Output by the simulator; every row of the runtime has to give its bits.
Tensor executed(const Plan& plan, const Tensor& images) {
  const Tensor simulated = Simulator(plan).run({images})[0];
  ThreadPool two(2);
  for (const std::string& isa : runtime::available_isas()) {
    const int64_t batch = images.shape()[0];
    Session session(Program::from_plan(plan, {.isa = isa}),
                    {.max_batch = batch, .pool = &two, .parallel_from_ns = 0});
    Tensor answer(DType::kF32, simulated.shape());
    const ConstTensorView in = images.view();
    const TensorView out = answer.view();
    session.run({&in, 1}, {&out, 1});
    EXPECT_EQ(std::memcmp(answer.data(), simulated.data(), simulated.bytes()), 0) << isa;
  }
  return simulated;
}

// Every site rounds to 8 bits over the range of its values: about 6.02 * 8 + 4.8 - 20 log10(peak /
// RMS) = 40 dB for peaks of five deviations, three such roundings (input, weights) a layer, and up
// to eight layers on a path: 40 - 10 log10(24) = 26 dB.
constexpr double kLeastSnr = 24.0;

Plan check(Workspace ws) {
  testing::run_method(ws, "round_to_nearest");
  const at::Tensor want = testing::float_output(ws, ws.reference).contiguous();
  store_weights(ws);
  LowerOptions options;
  options.round_weights = true;
  Plan plan = lower(ws.graph, ws.plan, options);
  const at::Tensor images = ws.calibration.load(0, 12);
  Tensor input(DType::kF32, {12, images.size(1), images.size(2), images.size(3)});
  std::memcpy(input.data(), images.const_data_ptr<float>(), input.bytes());
  const Tensor got = executed(plan, input);
  EXPECT_EQ(got.size(), want.numel());
  double noise = 0, power = 0;
  const float* exact = want.const_data_ptr<float>();
  for (int64_t i = 0; i < got.size(); ++i) {
    const double a = static_cast<double>(exact[i]);
    const double d = a - static_cast<double>(got.as<float>()[static_cast<size_t>(i)]);
    noise += d * d, power += a * a;
  }
  EXPECT_GT(10 * std::log10(power / noise), kLeastSnr);
  return plan;
}

std::map<std::string, int> count_ops(const Plan& plan) {
  std::map<std::string, int> count;
  for (const Step& step : plan.steps) ++count[step.op];
  return count;
}

// IMDN: distillation by splits, contrast-aware channel attention, pixels from channels.
TEST(ConvolutionNetworks, SuperResolution) {
  ThreadPool pool(1);
  Network g({3, 10, 12});
  const Attrs slope = attributes({{"alpha", 0.05f}});
  const ValueId head = g.conv("head", g.x, 16, 3, 3, 1);
  const auto split = [&](ValueId v) {
    return g.nodes(OpKind::kSplit, {v, g.integers({4, 12})}, 2, attributes({{"axis", int64_t{1}}}));
  };
  const auto first = split(g.one(OpKind::kLeakyRelu, g.conv("c1", head, 16, 16, 3, 1), slope));
  const auto second = split(g.one(OpKind::kLeakyRelu, g.conv("c2", first[1], 16, 12, 3, 1), slope));
  const ValueId third = g.conv("c3", second[1], 4, 12, 3, 1);
  const ValueId joined =
      g.node(OpKind::kConcat, {first[0], second[0], third}, attributes({{"axis", int64_t{1}}}));
  const ValueId mean = g.mean(joined);
  const ValueId centred = g.node(OpKind::kSub, {joined, mean});
  const ValueId squares = g.mean(g.node(OpKind::kPow, {centred, g.scalar(2.0f)}));
  const ValueId contrast = g.node(OpKind::kAdd, {g.one(OpKind::kSqrt, squares), mean});
  ValueId gate = g.one(OpKind::kRelu, g.conv("down", contrast, 4, 12, 1, 1));
  gate = g.one(OpKind::kSigmoid, g.conv("up", gate, 12, 4, 1, 1));
  ValueId y = g.conv("c5", g.node(OpKind::kMul, {joined, gate}), 16, 12, 1, 1);
  y = g.conv("pixels", g.node(OpKind::kAdd, {y, head}), 12, 16, 3, 1);
  y = g.node(OpKind::kDepthToSpace, {y},
             attributes({{"blocksize", int64_t{2}}, {"mode", std::string("CRD")}}));
  const Plan plan = check(g.finish(pool, y));
  const auto ops = count_ops(plan);
  EXPECT_EQ(ops.at("linear") + ops.at("conv"), 8);
  // Into the input's order, and out of the output's with its pixels.
  EXPECT_LE(ops.at("transpose"), 4);
}

// MobileNet v3 and PP-LCNet: hard swish written out, squeeze and excitation, pools.
TEST(ConvolutionNetworks, SqueezeAndExcitation) {
  ThreadPool pool(1);
  Network g({3, 12, 16});
  const auto hard_swish = [&](ValueId v) {
    const ValueId raised = g.node(OpKind::kAdd, {v, g.scalar(3.0f)});
    const ValueId gate = g.node(OpKind::kClip, {raised, g.scalar(0.0f), g.scalar(6.0f)});
    return g.node(OpKind::kDiv, {g.node(OpKind::kMul, {v, gate}), g.scalar(6.0f)});
  };
  ValueId y = hard_swish(g.conv("stem", g.x, 16, 3, 3, 2));
  y = hard_swish(g.conv("depthwise", y, 16, 16, 3, 1, 16));
  ValueId gate = g.one(OpKind::kGlobalAveragePool, y);
  gate = g.one(OpKind::kRelu, g.conv("reduce", gate, 4, 16, 1, 1));
  gate = g.one(OpKind::kHardSigmoid, g.conv("expand", gate, 16, 4, 1, 1),
               attributes({{"alpha", 0.2f}, {"beta", 0.5f}}));
  y = g.conv("project", g.node(OpKind::kMul, {gate, y}), 24, 16, 1, 1);
  y = g.one(OpKind::kHardSwish, y);
  y = g.one(OpKind::kAveragePool, y,
            attributes({{"kernel_shape", std::vector<int64_t>{3, 2}},
                        {"strides", std::vector<int64_t>{3, 2}}}));
  y = g.conv("last", y, 8, 24, 1, 1);
  check(g.finish(pool, g.mean(y)));
}

// A U-Net: norms over whole images, pools, transposed convolutions, joins with the way down.
TEST(ConvolutionNetworks, UNet) {
  ThreadPool pool(1);
  Network g({1, 12, 12});
  const ValueId down = g.one(OpKind::kRelu, g.conv("down", g.x, 8, 1, 3, 1));
  const auto norm = [&](const std::string& name, ValueId v, const Shape& shape) {
    return g.node(OpKind::kLayerNorm,
                  {v, g.weights(fmt::format("{}.gamma", name), shape, 0.1f, 1.0f),
                   g.weights(fmt::format("{}.beta", name), shape, 0.1f)},
                  attributes({{"axis", int64_t{1}}}), name);
  };
  ValueId y = g.one(OpKind::kMaxPool, down,
                    attributes({{"kernel_shape", std::vector<int64_t>{2, 2}},
                                {"strides", std::vector<int64_t>{2, 2}}}));
  y = norm("norm", g.conv("middle", y, 12, 8, 3, 1), {12, 6, 6});
  y = g.one(OpKind::kRelu, g.conv("deep", y, 12, 12, 3, 1));
  y = g.node(OpKind::kConvTranspose,
             {y, g.weights("up.weight", {12, 8, 4, 4}, 0.15f), g.weights("up.bias", {8}, 0.1f)},
             attributes({{"strides", std::vector<int64_t>{2, 2}},
                         {"pads", std::vector<int64_t>{1, 1, 1, 1}}}),
             "up");
  y = g.node(OpKind::kConcat, {y, down}, attributes({{"axis", int64_t{1}}}));
  y = g.conv("joined", y, 8, 16, 3, 1);
  y = g.node(OpKind::kGroupNorm,
             {y, g.weights("group.scale", {8}, 0.1f, 1.0f), g.weights("group.shift", {8}, 0.1f)},
             attributes({{"num_groups", int64_t{4}}}), "group");
  y = g.one(OpKind::kSilu, y);
  y = g.node(OpKind::kResize, {y, kNoValue, g.floats("scales", {4}, {1.0f, 1.0f, 2.0f, 2.0f})},
             attributes({{"mode", std::string("nearest")},
                         {"coordinate_transformation_mode", std::string("asymmetric")},
                         {"nearest_mode", std::string("floor")}}));
  const Plan plan = check(g.finish(pool, g.conv("out", y, 2, 8, 3, 2)));
  // Pools and joins move codes; the transposed convolution is one product.
  for (const Step& step : plan.steps) {
    const Buffer& out = plan.buffers[static_cast<size_t>(step.out[0])];
    EXPECT_TRUE(step.op != "concat" || out.dtype == DType::kU8) << step.name;
  }
  EXPECT_EQ(count_ops(plan).at("conv"), 6);
}

}  // namespace
}  // namespace repquant
