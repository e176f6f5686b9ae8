#include "repquant/quantize/range_search.h"

#include <gtest/gtest.h>

#include "repquant/graph/testing.h"

namespace repquant::quantize {
namespace {

// One node that reads `values` [samples, tokens, channels], in two chunks.
struct OneSite {
  explicit OneSite(const at::Tensor& values) {
    graph_testing::GraphBuilder b;
    const ValueId x = b.input("x", {graph_testing::dim("n"), graph_testing::dim(values.size(1)),
                                    graph_testing::dim(values.size(2))});
    b.graph.outputs = {b.node(OpKind::kRelu, {x})};
    ws = make_workspace(b.graph);
    ws.pool = &pool;
    site = {ws.graph.order()[0], 0};
    block = {"all", ws.graph.order(), x, ws.graph.outputs[0]};
    inputs = values.chunk(2);
    walk.emplace(ws, ws.weights, block, inputs, SiteHook{});
  }
  ThreadPool pool{2};
  Workspace ws;
  Site site;
  observe::Block block;
  observe::Chunks inputs;
  std::optional<observe::BlockWalk> walk;
};

// A head's scale is what a search on that head alone finds, by every rule.
TEST(RangeSearch, HeadsAreSearchedAlone) {
  torch::manual_seed(3);
  const int64_t heads = 3, width = 5;
  at::Tensor values = at::randn({6, 40, heads * width});
  for (int64_t h = 0; h < heads; ++h) values.slice(2, h * width, (h + 1) * width).mul_(h + 0.5);
  const auto by_rule = [](OneSite& one, const QuantSpec& spec, int rule) {
    if (rule == 0) return min_max_range(*one.walk, one.site, spec);
    if (rule == 1) return mse_range(*one.walk, one.site, spec);
    return percentile_range(*one.walk, one.site, spec, wide_percentiles());
  };
  OneSite whole(values);
  for (const bool symmetric : {true, false}) {
    const Uniform format{symmetric, false, true, false};
    for (const int rule : {0, 1, 2}) {
      const QParams together = by_rule(whole, {4, format, PerHead{3}, Range{}}, rule);
      ASSERT_EQ(together.scale.size(), 3u);
      for (int64_t h = 0; h < heads; ++h) {
        OneSite part(values.slice(2, h * width, (h + 1) * width).contiguous());
        const QParams alone = by_rule(part, {4, format, PerTensor{}, Range{}}, rule);
        const auto at = static_cast<size_t>(h);
        EXPECT_EQ(together.scale[at], alone.scale[0]) << rule << " head " << h;
        EXPECT_EQ(together.zero_point[at], alone.zero_point[0]) << rule << " head " << h;
      }
      EXPECT_LT(together.scale[0], together.scale[2]);
    }
  }
}

}  // namespace
}  // namespace repquant::quantize
