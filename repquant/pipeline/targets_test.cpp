#include "repquant/pipeline/targets.h"

#include <gtest/gtest.h>

#include "repquant/evaluate/artifact_model.h"
#include "repquant/evaluate/verify.h"
#include "repquant/methods/testing_cnn.h"
#include "repquant/pipeline/passes.h"
#include "repquant/pipeline/quantize.h"

namespace repquant {
namespace {

using testing::TinyVit;

Workspace workspace(bool class_token = true) {
  TinyVit options;
  options.class_token = class_token;
  Workspace ws = make_workspace(testing::tiny_vit(options).graph);
  make_parameters_explicit(ws);
  return ws;
}

Recipe w4a3() {
  Recipe recipe;
  recipe.scheme = {4, 3};
  return recipe;
}

// Site name -> bits and granularity where two sets of targets differ.
std::map<std::string, SiteTarget> changed(const Workspace& ws, const Recipe& from,
                                          const Recipe& to) {
  const auto before = make_targets(ws, from), after = make_targets(ws, to);
  EXPECT_EQ(before.size(), after.size());
  std::map<std::string, SiteTarget> result;
  for (const auto& [site, target] : after) {
    if (before.at(site) != target) result[site_name(ws.graph, site)] = target;
  }
  return result;
}

TEST(Targets, HeadBitsChangeTheHeadAlone) {
  for (const bool class_token : {true, false}) {
    const Workspace ws = workspace(class_token);
    Recipe recipe = w4a3();
    recipe.head_bits = 8;
    const auto found = changed(ws, w4a3(), recipe);
    ASSERT_EQ(found.size(), 2u);
    for (const auto& [name, target] : found) {
      EXPECT_EQ(name.rfind("head:", 0), 0u) << name;
      EXPECT_EQ(target.bits, 8);
    }
    recipe.layers = {LayerRule{"head", 5, 0, "", "", ""}};  // a rule has the last word
    EXPECT_EQ(changed(ws, w4a3(), recipe).at("head:weight").bits, 5);
    EXPECT_EQ(changed(ws, w4a3(), recipe).at("head:input").bits, 8);
  }
}

TEST(Targets, EveryLinearThatEndsTheModelIsAHead) {
  Workspace ws = workspace();
  const NodeId head = head_layers(ws.graph).at(0);
  Node twin = ws.graph.node(head);
  twin.name = "head_dist";
  Value value = ws.graph.value(twin.outputs[0]);
  value.name = "distilled";
  value.producer = -1;
  twin.outputs = {ws.graph.add_value(value)};
  ws.graph.outputs.push_back(twin.outputs[0]);
  ws.graph.add_node(twin);
  EXPECT_EQ(head_layers(ws.graph).size(), 2u);
}

TEST(Targets, HeadBitsWithoutAHeadAreRefused) {
  Workspace ws = workspace();
  for (const NodeId id : ws.graph.order()) {
    if (ws.graph.node(id).op != OpKind::kMultiHeadAttention) continue;
    ws.graph.outputs = ws.graph.node(id).outputs;
    break;
  }
  Recipe recipe = w4a3();
  recipe.head_bits = 8;
  EXPECT_THROW(make_targets(ws, recipe), Error);
}

TEST(Targets, AConvolutionThatEndsTheModelIsItsHead) {
  Workspace ws = workspace();
  NodeId conv = -1;
  for (const NodeId id : ws.graph.order()) {
    if (ws.graph.node(id).op == OpKind::kConv) conv = id;
  }
  ws.graph.outputs = ws.graph.node(conv).outputs;
  EXPECT_EQ(head_layers(ws.graph), std::vector<NodeId>{conv});
  Recipe recipe = w4a3();
  recipe.head_bits = 6;
  EXPECT_EQ(make_targets(ws, recipe).at({conv, 1}).bits, 6);
}

TEST(Targets, DepthwiseBitsChangeDepthwiseWeightsAlone) {
  ThreadPool pool(1);
  const Workspace ws = testing::tiny_cnn_workspace(pool, 4, 4);
  Recipe recipe = w4a3();
  recipe.depthwise_bits = 7;
  const auto found = changed(ws, w4a3(), recipe);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found.at("depth:weight").bits, 7);
}

TEST(Targets, AFloatRuleLeavesTheLayerOut) {
  const Workspace ws = workspace();
  Recipe recipe = w4a3();
  recipe.layers = {LayerRule{"blocks.0.mlp.fc1:input", 0, 0, "float", "", ""}};
  const auto all = make_targets(ws, w4a3()), left = make_targets(ws, recipe);
  EXPECT_EQ(all.size(), left.size() + 2);
  for (const auto& [site, target] : left)
    EXPECT_NE(ws.graph.node(site.node).name, "blocks.0.mlp.fc1");
  recipe.layers.push_back(LayerRule{"blocks.0.mlp.fc1", 0, 0, "auto", "", ""});
  EXPECT_EQ(make_targets(ws, recipe), all);  // the last rule has the last word
  recipe.layers = {LayerRule{"blocks.0.attn.mha", 0, 0, "float", "", ""}};
  EXPECT_THROW(make_targets(ws, recipe), Error);
}

TEST(Targets, GranularityIsOfAttentionOperands) {
  const Workspace ws = workspace();
  Recipe recipe = w4a3();
  recipe.granularity = "head";
  const auto found = changed(ws, w4a3(), recipe);
  EXPECT_EQ(found.size(), 6u);  // q, k and v of two blocks
  for (const auto& [name, target] : found) {
    EXPECT_NE(name.find(".mha:"), std::string::npos) << name;
    EXPECT_EQ(name.find("probabilities"), std::string::npos) << name;
    EXPECT_EQ(target.granularity, "head");
  }
  recipe.layers = {LayerRule{"blocks.0.*", 0, 0, "", "", "tensor"}};
  EXPECT_EQ(changed(ws, w4a3(), recipe).size(), 3u);
  recipe.layers = {LayerRule{"*.mlp.*", 0, 0, "", "", "head"}};
  EXPECT_THROW(make_targets(ws, recipe), Error);
}

// Scales a head survive the methods, the lowering and the artifact's plan: runtime and simulator
// agree bit for bit, and the integer model is the calibrated one.
TEST(PerHead, RunsWithTheBitsOfTheSimulator) {
  ThreadPool pool(2);
  for (const char* method : {"round_to_nearest", "repq_vit", "repquant"}) {
    for (const int bits : {4, 8}) {
      SCOPED_TRACE(std::string(method) + " " + std::to_string(bits));
      Workspace ws = testing::tiny_workspace(pool, bits);
      Recipe recipe;
      recipe.scheme = {bits, bits};
      recipe.granularity = "head";
      recipe.head_bits = 8;
      recipe.passes = {Pass{method, {}}};
      run_passes(ws, effective_recipe(recipe, registry_options));
      int per_head = 0;
      for (const auto& [site, assignment] : ws.plan.all()) {
        if (!std::holds_alternative<PerHead>(assignment.params.spec.granularity)) continue;
        ++per_head;
        ASSERT_EQ(assignment.params.scale.size(), 2u);
        EXPECT_NE(assignment.params.scale[0], assignment.params.scale[1]);
      }
      EXPECT_EQ(per_head, 6);
      const at::Tensor want = testing::quantized_output(ws);
      const Plan plan = finish(ws, nlohmann::json::object(), nlohmann::json::object());
      const Tensor images = from_aten(ws.calibration.load(0, 3));
      const auto program = Program::from_plan(plan);
      const auto different = first_difference(plan, program, {images}, &pool);
      EXPECT_FALSE(different.has_value()) << different->step;
      const at::Tensor got = to_aten(artifact_model(program, pool)(images));
      const at::Tensor error = got - want.slice(0, 0, 3);
      // Sums that fall on a tie may give another code than f32 sums do; a wrong scale would give
      // errors of the size of the output.
      const double share =
          error.square().mean().item<double>() / want.square().mean().item<double>();
      EXPECT_LE(share, bits == 8 ? 1e-3 : 5e-2);
    }
  }
}

}  // namespace
}  // namespace repquant
