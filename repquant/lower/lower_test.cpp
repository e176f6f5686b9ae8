#include "repquant/lower/lower.h"

#include <algorithm>
#include <functional>

#include <gtest/gtest.h>

#include "repquant/core/artifact.h"
#include "repquant/core/error.h"
#include "repquant/graph/testing_vit.h"
#include "repquant/lower/summary.h"

namespace repquant {
namespace {

using testing::Model;
using testing::Softmax;
using testing::TinyVit;

int count(const Plan& plan, const std::string& op) {
  return static_cast<int>(std::count_if(plan.steps.begin(), plan.steps.end(),
                                        [&](const Step& step) { return step.op == op; }));
}

const Step& step_named(const Plan& plan, const std::string& name) {
  for (const Step& step : plan.steps) {
    if (step.name == name) return step;
  }
  throw Error(ErrorCode::kInternal, "no step " + name);
}

const Buffer& output_of(const Plan& plan, const std::string& step) {
  return plan.buffers[static_cast<size_t>(step_named(plan, step).out[0])];
}

NodeId node_named(const Graph& graph, const std::string& name) {
  for (const NodeId id : graph.order()) {
    if (graph.node(id).name == name) return id;
  }
  throw Error(ErrorCode::kInternal, "no node " + name);
}

// Lowers after `change`; returns the error's message, which must hold all of `words`.
void expect_refused(const TinyVit& options, const std::function<void(Model&)>& change,
                    ErrorCode code, const std::vector<std::string>& words) {
  Model model = testing::tiny_vit(options);
  change(model);
  try {
    lower(model.graph, model.plan);
    ADD_FAILURE() << "accepted; expected " << words[0];
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& word : words) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  }
}

TEST(Lower, EveryVariantGivesAVerifiedPlan) {
  for (const TinyVit& options : testing::tiny_vit_variants()) {
    SCOPED_TRACE(options.seed);
    const Model model = testing::tiny_vit(options);
    const Plan plan = lower(model.graph, model.plan);
    EXPECT_NO_THROW(verify_plan(plan));
    EXPECT_EQ(count(plan, "attention"), options.blocks);
    EXPECT_EQ(count(plan, "linear"), 2 + 6 * options.blocks);
  }
}

TEST(Lower, FusesResidualsSplitsAndNorms) {
  TinyVit options;
  const Model model = testing::tiny_vit(options);
  const Plan plan = lower(model.graph, model.plan);
  EXPECT_EQ(count(plan, "add"), 1);        // the position embedding
  EXPECT_EQ(count(plan, "transpose"), 2);  // patches; the class token loses an axis
  EXPECT_EQ(count(plan, "quantize"), 1);   // the image
  EXPECT_EQ(count(plan, "slice"), 1);
  EXPECT_EQ(step_named(plan, "blocks.0.attn.proj").in.size(), 2u);
  EXPECT_EQ(step_named(plan, "blocks.1.mlp.fc2").in.size(), 2u);
  for (const char* name : {"blocks.0.norm1", "blocks.0.attn.qkv.q", "blocks.0.attn.mha", "norm"}) {
    EXPECT_EQ(output_of(plan, name).dtype, DType::kU8) << name;
  }
  EXPECT_EQ(output_of(plan, "blocks.0.mlp.fc1").dtype, DType::kF32);
  EXPECT_EQ(plan.buffers[static_cast<size_t>(plan.outputs[0])].item_shape, (Shape{10}));
  EXPECT_EQ(plan.model["inputs"][0]["name"], "input");
}

TEST(Lower, PreGeluSiteBecomesOneTable) {
  TinyVit options;
  options.pre_gelu = true;
  const Model model = testing::tiny_vit(options);
  const Plan plan = lower(model.graph, model.plan);
  EXPECT_EQ(count(plan, "activation"), 0);
  EXPECT_EQ(count(plan, "quantize_log"), 0);
  EXPECT_EQ(count(plan, "table"), 0);  // part of the product in front of it
  for (int block = 0; block < options.blocks; ++block) {
    const Step& step = step_named(plan, "blocks." + std::to_string(block) + ".mlp.fc1");
    EXPECT_TRUE(step.tensors.contains("lut")) << block;
  }
  EXPECT_EQ(output_of(plan, "blocks.0.mlp.fc1").bits, 8);
}

TEST(Lower, DifferentReadersOfANormGetTheirOwnCodes) {
  TinyVit options;
  options.fused_qkv = false;
  Model model = testing::tiny_vit(options);
  model.plan.find({node_named(model.graph, "blocks.0.attn.k"), 0})->params.scale[0] *= 1.5f;
  const Plan plan = lower(model.graph, model.plan);
  EXPECT_EQ(output_of(plan, "blocks.0.norm1").dtype, DType::kF32);
  EXPECT_EQ(count(plan, "quantize"), 1 + 2);
  EXPECT_EQ(output_of(plan, "blocks.1.norm1").dtype, DType::kU8);
}

TEST(Lower, NormKeepsItsFloatForAFloatReader) {
  Model model = testing::tiny_vit({});
  model.graph.outputs.push_back(
      model.graph.node(node_named(model.graph, "blocks.1.norm2")).outputs[0]);
  const Plan plan = lower(model.graph, model.plan);
  EXPECT_EQ(output_of(plan, "blocks.1.norm2").dtype, DType::kF32);
  EXPECT_EQ(plan.outputs.size(), 2u);
}

TEST(Lower, SoftmaxKinds) {
  const std::vector<std::pair<Softmax, std::string>> kinds = {{Softmax::kTable, "table"},
                                                              {Softmax::kTable2, "table2"},
                                                              {Softmax::kParity, "parity"},
                                                              {Softmax::kUniform, "plain"},
                                                              {Softmax::kRow, "row"}};
  for (const auto& [kind, pv] : kinds) {
    TinyVit options;
    options.softmax = kind;
    const Model model = testing::tiny_vit(options);
    const Plan plan = lower(model.graph, model.plan);
    EXPECT_EQ(step_named(plan, "blocks.0.attn.mha").strings.at("pv"), pv);
  }
}

TEST(Lower, PerHeadScalesReachTheStep) {
  TinyVit options;
  options.per_head = true;
  const Model model = testing::tiny_vit(options);
  const Plan plan = lower(model.graph, model.plan);
  const Step& step = step_named(plan, "blocks.0.attn.mha");
  EXPECT_EQ(plan.tensor(step, "m").size(), options.heads);
  EXPECT_EQ(plan.tensor(step, "mo").size(), options.heads);
}

TEST(Lower, EqualArgumentsGiveEqualPlans) {
  const Model a = testing::tiny_vit({}), b = testing::tiny_vit({});
  EXPECT_EQ(artifact_digest(lower(a.graph, a.plan)), artifact_digest(lower(b.graph, b.plan)));
}

TEST(Lower, RefusesByName) {
  const TinyVit base;
  const auto site = [](Model& m, const std::string& node, int input) {
    return m.plan.find({node_named(m.graph, node), input});
  };
  expect_refused(base,
                 [&](Model& m) {
                   m.plan.erase({node_named(m.graph, "blocks.0.mlp.fc2"), 0});
                 },
                 ErrorCode::kUnsupported, {"blocks.0.mlp.fc2", "no quantization"});
  expect_refused(base,
                 [&](Model& m) {
                   m.plan.erase({node_named(m.graph, "blocks.1.attn.mha"), kProbabilities});
                 },
                 ErrorCode::kUnsupported, {"blocks.1.attn.mha", "probabilities"});
  expect_refused(base,
                 [&](Model& m) {
                   QParams& p = site(m, "blocks.0.mlp.fc1", 0)->params;
                   p.spec.granularity = PerChannel{1};
                   p.zero_point.clear();
                   p.scale.assign(32, 0.1f);
                   p.lower.assign(32, -1.0f);
                 },
                 ErrorCode::kInvalidArgument, {"blocks.0.mlp.fc1"});
  expect_refused(
      base,
      [&](Model& m) {
        site(m, "blocks.0.attn.mha", kProbabilities)->params.spec.format = Log{2.0, 0.0, 8, true};
      },
      ErrorCode::kUnsupported, {"blocks.0.attn.mha", "compat"});
  expect_refused(base,
                 [&](Model& m) {
                   m.graph.node(node_named(m.graph, "patch_embed")).attrs.set("group", int64_t{2});
                 },
                 ErrorCode::kUnsupported, {"patch_embed", "2 groups"});
  expect_refused(
      base,
      [&](Model& m) {
        m.graph.node(node_named(m.graph, "blocks.0.attn.mha")).attrs.set("kv_heads", int64_t{1});
      },
      ErrorCode::kUnsupported, {"blocks.0.attn.mha", "grouped heads"});
  expect_refused(
      base,
      [&](Model& m) { m.graph.node(node_named(m.graph, "blocks.0.norm1")).op = OpKind::kHardmax; },
      ErrorCode::kUnsupported, {"hardmax", "blocks.0.norm1"});
  expect_refused(
      base,
      [&](Model& m) {
        m.plan.set({node_named(m.graph, "blocks.0.add1"), 0}, *site(m, "blocks.0.mlp.fc1", 0));
      },
      ErrorCode::kUnsupported, {"blocks.0.add1"});
  expect_refused(base,
                 [&](Model& m) {
                   const NodeId id = node_named(m.graph, "blocks.0.mlp.fc1");
                   m.graph.value(m.graph.node(id).inputs[1]).constant->as<float>()[3] += 0.01f;
                 },
                 ErrorCode::kInternal, {"blocks.0.mlp.fc1", "grid"});
}

TEST(Summary, CountsWhatThePlanHolds) {
  const Model model = testing::tiny_vit({});
  const Plan plan = lower(model.graph, model.plan);
  const nlohmann::json summary = plan_summary(plan);
  int64_t bytes = 0;
  for (const auto& [name, tensor] : plan.tensors)
    bytes += static_cast<int64_t>(tensor.data.bytes());
  EXPECT_EQ(summary["bytes"], bytes);
  // patch 32*48, per block 32*96 + 32*32 + 2*32*64, head 320
  EXPECT_EQ(summary["weights"], 1536 + 2 * (3072 + 1024 + 4096) + 320);
  EXPECT_EQ(summary["steps"].size(), plan.steps.size());
  const std::string text = print(plan);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'),
            static_cast<int64_t>(plan.steps.size()) + 1);
}

}  // namespace
}  // namespace repquant
