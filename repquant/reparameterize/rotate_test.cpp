#include "repquant/reparameterize/rotate.h"

#include <gtest/gtest.h>

#include "repquant/graph/testing_vit.h"
#include "repquant/reparameterize/output_probe.h"

namespace repquant::reparameterize {
namespace {

Workspace workspace(const testing::TinyVit& options) {
  at::set_num_threads(1);
  Workspace ws = make_workspace(testing::tiny_vit(options).graph);
  const at::Tensor images = to_aten(testing::random_images(options, 2, 5));
  ws.calibration = {2,
                    [images](int64_t begin, int64_t end) { return images.slice(0, begin, end); }};
  make_parameters_explicit(ws);
  ws.reference = ws.weights;
  return ws;
}

TEST(OutputProbe, RotationsKeepTheOutputWithinTheBound) {
  for (int variant = 0; variant < 8; ++variant) {
    testing::TinyVit options;
    options.class_token = (variant & 1) != 0;
    options.rms_norm = (variant & 2) != 0;
    options.fused_qkv = (variant & 4) != 0;
    Workspace ws = workspace(options);
    const auto expect_kept = [&](const OutputProbe& probe) {
      const auto [difference, bound] = probe.compare(ws);
      EXPECT_GT(difference, 0.0) << variant;  // the tensors were rounded anew
      EXPECT_LE(difference, bound) << variant;
    };
    const OutputProbe before_residual(ws);
    std::string reason;
    ASSERT_TRUE(rotate_residual(ws, 3, &reason)) << reason;
    expect_kept(before_residual);
    const OutputProbe before_heads(ws);
    ASSERT_EQ(rotate_heads(ws, 3), options.blocks);
    expect_kept(before_heads);
  }
}

// One rotation out of place, one reader left out, one weight off by 0.1.
TEST(OutputProbe, SeesARewriteThatChangesTheFunction) {
  const testing::TinyVit options;
  const auto linear = [](const Workspace& ws, const std::string& name) {
    for (const NodeId id : ws.graph.order()) {
      if (ws.graph.node(id).name == name) return id;
    }
    return NodeId{-1};
  };
  for (const int fault : {0, 1, 2}) {
    Workspace ws = workspace(options);
    const OutputProbe probe(ws);
    const NodeId fc1 = linear(ws, "blocks.1.mlp.fc1"), proj = linear(ws, "blocks.0.attn.proj");
    const at::Tensor plain = ws.constant(proj, 1);
    ASSERT_TRUE(rotate_residual(ws, 3, nullptr));
    ASSERT_LE(probe.compare(ws).difference, probe.compare(ws).bound);
    at::Tensor w = ws.constant(fc1, 1).clone();
    if (fault == 0) w = at::roll(w, 1, 1);
    if (fault == 2) w[3][4].add_(0.1);
    ws.set_constant(fc1, 1, w);
    if (fault == 1) ws.set_constant(proj, 1, plain);
    EXPECT_GT(probe.compare(ws).difference, probe.compare(ws).bound) << fault;
    EXPECT_THROW(probe.check(ws), Error) << fault;
  }
}

}  // namespace
}  // namespace repquant::reparameterize
