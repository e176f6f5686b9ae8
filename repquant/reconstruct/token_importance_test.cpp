#include "repquant/reconstruct/token_importance.h"

#include <gtest/gtest.h>

#include "repquant/graph/testing_vit.h"

namespace repquant::reconstruct {
namespace {

struct Setting {
  Workspace ws;
  std::vector<observe::Block> blocks;
  std::vector<at::Tensor> outputs;  // of each block
};

Setting setting(bool class_token) {
  testing::TinyVit options;
  options.class_token = class_token;
  Setting s{make_workspace(testing::tiny_vit(options).graph), {}, {}};
  make_parameters_explicit(s.ws);
  s.ws.reference = s.ws.weights;
  s.blocks = observe::blocks(s.ws.graph);
  torch::manual_seed(3);
  at::Tensor x = at::randn({1, 3, 8, 8});
  const Interpreter interpreter(s.ws.graph, s.ws.reference);
  for (const observe::Block& block : s.blocks) {
    ValueMap values{{block.input, x}};
    const ValueId keep[] = {block.output};
    interpreter.run_nodes(block.nodes, values, keep);
    x = values.at(block.output);
    s.outputs.push_back(x);
  }
  return s;
}

at::Tensor importance(const Setting& s, size_t block, double share) {
  return token_importance(s.ws, std::span(s.blocks).subspan(block + 1), s.outputs[block], share, 1);
}

TEST(TokenImportance, BehindTheLastAttentionOnlyTheClassTokenCounts) {
  const Setting s = setting(true);
  const size_t last = s.blocks.size() - 2;  // the head comes behind
  const int64_t tokens = s.outputs[last].size(1);
  const at::Tensor w = importance(s, last, 0.5);
  ASSERT_EQ(w.sizes(), (std::vector<int64_t>{tokens, 1}));
  // The whole gradient is the class token's: relative energy T there, 0 elsewhere.
  EXPECT_NEAR(w[0].item<float>(), 0.5f + 0.5f * static_cast<float>(tokens), 1e-4f);
  EXPECT_TRUE(at::allclose(w.slice(0, 1), at::full({tokens - 1, 1}, 0.5f)));
}

TEST(TokenImportance, BeforeItEveryTokenCounts) {
  const Setting s = setting(true);
  const size_t first = s.blocks.size() - 3;
  const at::Tensor w = importance(s, first, 1.0);
  EXPECT_GT(w.min().item<float>(), 0.0f);
  EXPECT_NEAR(w.mean().item<float>(), 1.0f, 1e-5f);
}

TEST(TokenImportance, TokensOfAMeanAreAlike) {
  const Setting s = setting(false);
  const at::Tensor w = importance(s, s.blocks.size() - 2, 1.0);
  EXPECT_TRUE(at::allclose(w, at::ones_like(w), 1e-4));
}

TEST(TokenImportance, UndefinedWhereAllWeighTheSame) {
  const Setting s = setting(true);
  EXPECT_FALSE(importance(s, 1, 0.0).defined());
  EXPECT_FALSE(importance(s, s.blocks.size() - 1, 0.5).defined());
}

}  // namespace
}  // namespace repquant::reconstruct
