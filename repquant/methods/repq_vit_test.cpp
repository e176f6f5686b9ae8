#include <set>

#include "repquant/methods/testing.h"
#include "repquant/reparameterize/fold.h"

namespace repquant {
namespace {

using namespace testing;

NodeId first_norm(const Workspace& ws) {
  for (const NodeId id : ws.graph.order()) {
    if (ws.graph.node(id).op == OpKind::kLayerNorm) return id;
  }
  return -1;
}

QParams random_channels(int64_t channels, int bits) {
  QParams params{{bits, Uniform{false, true, false, false}, PerChannel{-1}, Range{}}, {}, {}, {}};
  const at::Tensor s = at::rand({channels}) + 0.2, lower = at::randn({channels}) * 2 - 2;
  for (int64_t c = 0; c < channels; ++c) {
    params.scale.push_back(s[c].item<float>());
    params.lower.push_back(lower[c].item<float>());
  }
  return params;
}

TEST(Fold, KeepsTheFloatFunctionForAnyZeroPoint) {
  ThreadPool pool(1);
  for (const double zero : {0.0, 7.0, 8.0, 15.0}) {
    Workspace ws = tiny_workspace(pool, 4);
    const at::Tensor want = float_output(ws, ws.reference);
    const auto site = reparameterize::norm_consumers(ws, first_norm(ws), nullptr);
    ASSERT_TRUE(site.has_value());
    reparameterize::fold_norm(ws, *site, random_channels(32, 4), zero);
    // f32 rounding of parameters and of sums over 32 channels whose terms grew by at most z~ + 1.
    EXPECT_LE((float_output(ws, ws.weights) - want).abs().max().item<float>(),
              1e-5f * static_cast<float>(1 + zero) * want.abs().max().item<float>());
  }
}

TEST(Fold, CodesEqualThePerChannelCodes) {
  torch::manual_seed(5);
  const QParams channels = random_channels(16, 4);
  const at::Tensor y = at::randn({4000, 16}, at::kDouble) * 3;
  const at::Tensor s = at::tensor(channels.scale).to(at::kDouble),
                   lower = at::tensor(channels.lower).to(at::kDouble);
  const at::Tensor per_channel = ((y - lower) / s).round().clamp(0, 15);
  const double mean = at::tensor(channels.scale).to(at::kDouble).mean().item<double>();
  const at::Tensor folded = (y - lower) / (s / mean) - mean * 8;
  const at::Tensor codes = ((folded / mean).round() + 8).clamp(0, 15);
  EXPECT_EQ((codes != per_channel).sum().item<int64_t>(), 0);
  const at::Tensor got =
      (reparameterize::to_folded(y.to(at::kFloat), channels, 8).to(at::kDouble) / mean).round() + 8;
  // In f32 a value within an ulp of a tie may move by one code.
  EXPECT_LE((got.clamp(0, 15) != per_channel).sum().item<int64_t>(), 2);
}

TEST(Fold, OfAnotherReaderIsATwin) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  const NodeId norm = first_norm(ws);
  const ValueId out = ws.graph.node(norm).outputs[0];
  const auto gain = [&](NodeId id) { return ws.constant(id, 1).clone(); };
  const at::Tensor before = gain(norm);
  const ValueId extra =
      ws.graph.add_value({"extra", DType::kF32, ws.graph.value(out).shape, -1, std::nullopt});
  ws.graph.add_node({OpKind::kRelu, "extra_reader", {out}, {extra}, {}});
  ws.graph.outputs.push_back(extra);
  std::string reason;
  EXPECT_FALSE(reparameterize::norm_consumers(ws, norm, &reason).has_value());
  EXPECT_NE(reason.find("extra_reader"), std::string::npos);
  struct : Sink {
    void warning(const std::string& code, const std::string& subject, const std::string& message,
                 const std::string&) override {
      seen.push_back(code + " " + subject + ": " + message);
    }
    std::vector<std::string> seen;
  } sink;
  ws.sink = &sink;
  run_method(ws, "repq_vit");
  EXPECT_TRUE(sink.seen.empty());
  const NodeId twin = reparameterize::twin_of(ws.graph, norm);
  ASSERT_GE(twin, 0);
  ws.graph.verify();
  EXPECT_EQ(ws.graph.consumers(out).size(), 1u);
  EXPECT_TRUE(at::equal(gain(norm), before));  // the other reader sees what it saw
  EXPECT_FALSE(at::equal(gain(twin), before));
  EXPECT_TRUE(ws.plan.find({ws.graph.consumers(ws.graph.node(twin).outputs[0]).at(0), 0}));
}

TEST(Fold, DeadAndHugeChannels) {
  QParams channels = random_channels(8, 4);
  channels.scale[2] = 1e-9f;
  const QParams guarded = reparameterize::guard_channels(channels);
  const double mean = at::tensor(channels.scale).mean().item<double>();
  EXPECT_NEAR(guarded.scale[2], 1e-3 * mean, 1e-6 * mean);
  EXPECT_NEAR(guarded.lower[2] + guarded.scale[2] * 7.5,
              channels.lower[2] + channels.scale[2] * 7.5, 1e-6);
  QParams lone = random_channels(2000, 4);
  for (float& s : lone.scale) s = 1e-6f;
  lone.scale[0] = 1.0f;
  EXPECT_THROW(reparameterize::guard_channels(lone), Error);
}

TEST(RepqVit, LeavesNoPerChannelSiteAndIntegerZeroPoints) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  run_method(ws, "repq_vit");
  for (const auto& [site, assignment] : ws.plan.all()) {
    EXPECT_TRUE(assignment.params.lower.empty()) << site_name(ws.graph, site);
    if (assignment.role == Role::kActivation) {
      EXPECT_EQ(assignment.params.scale.size(), 1u);
    }
  }
}

TEST(RepqVit, CompatKeepsARealZeroPoint) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  run_method(ws, "repq_vit", {{"compat", true}});
  int real = 0;
  for (const auto& [site, assignment] : ws.plan.all()) {
    if (assignment.params.lower.empty()) continue;
    const double zero =
        -static_cast<double>(assignment.params.lower[0]) / assignment.params.scale[0];
    real += std::abs(zero - std::round(zero)) > 1e-3 ? 1 : 0;
  }
  EXPECT_GT(real, 0);
}

TEST(RepqVit, ResultsDoNotDependOnThreadsOrOnResidency) {
  ThreadPool one(1), three(3);
  Workspace a = tiny_workspace(one, 4), b = tiny_workspace(three, 4), c = tiny_workspace(one, 4);
  c.resident_bytes = 0;  // every visit recomputes its block
  for (Workspace* ws : {&a, &b, &c}) run_method(*ws, "repq_vit");
  EXPECT_TRUE(at::equal(quantized_output(a), quantized_output(b)));
  EXPECT_TRUE(at::equal(quantized_output(a), quantized_output(c)));
}

}  // namespace
}  // namespace repquant
