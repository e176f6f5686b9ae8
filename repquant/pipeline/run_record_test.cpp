// What a run leaves behind: figures that agree with the model, the artifact and one another, and a
// report of them that a browser shows.
#include "repquant/pipeline/run_record.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "repquant/core/artifact.h"
#include "repquant/load/load.h"
#include "repquant/methods/testing.h"
#include "repquant/pipeline/channel_ranges.h"
#include "repquant/reconstruct/layer_error.h"
#include "repquant/report/testing_browser.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// ---- channel ranges -----------------------------------------------------------------------------
// Before calibration: channel 3 of the first norm is eight times as wide, channel 5 dead, the
// others lie around -3, 3, -3, ...
Workspace uneven_workspace(ThreadPool& pool, NodeId* norm) {
  Workspace ws = testing::tiny_workspace(pool, 4);
  for (const NodeId id : ws.graph.order()) {
    if (ws.graph.node(id).op != OpKind::kLayerNorm) continue;
    *norm = id;
    break;
  }
  at::Tensor gain = ws.constant(*norm, 1).clone(), beta = ws.constant(*norm, 2).clone();
  for (int64_t c = 0; c < beta.numel(); ++c) beta[c] += c % 2 == 0 ? -3.0 : 3.0;
  gain[3] *= 8.0;
  gain[5] = 0.0;
  ws.set_constant(*norm, 1, gain);
  ws.set_constant(*norm, 2, beta);
  ws.reference = ws.weights;
  return ws;
}

std::vector<double> line(const json& row, const char* key) {
  return row.at(key).get<std::vector<double>>();
}

const json& row_of(const json& rows, const std::string& norm) {
  for (const json& row : rows) {
    if (row.at("norm") == norm) return row;
  }
  throw std::runtime_error(norm);
}

double widest_to_median(const json& row, const std::string& part) {
  const std::vector<double> low = line(row, (part + "_low").c_str()),
                            high = line(row, (part + "_high").c_str());
  std::vector<double> widths;
  for (size_t c = 0; c < low.size(); ++c) widths.push_back(high[c] - low[c]);
  std::sort(widths.begin(), widths.end());
  return widths.back() / widths[widths.size() / 2];
}

TEST(ChannelRanges, MeasuredClippedAndFolded) {
  ThreadPool pool(1);
  NodeId norm = -1;
  Workspace ws = uneven_workspace(pool, &norm);
  testing::run_method(ws, "repq_vit");
  const json rows = channel_ranges(ws, ws.calibration.count);
  ASSERT_EQ(rows.size(), 5u);  // two a block, one before the head
  const json& row = row_of(rows, ws.graph.node(norm).name);

  // Measured: what the reader of the norm sees in the float model.
  at::Tensor seen;
  const NodeId reader = ws.graph.consumers(ws.graph.node(norm).outputs[0]).at(0);
  const std::vector<at::Tensor> images{ws.calibration.load(0, ws.calibration.count)};
  const at::NoGradGuard no_grad;
  Interpreter(ws.graph, ws.reference).run(images, [&](const Site& site, const at::Tensor& tensor) {
    if (site == Site{reader, 0}) seen = tensor.reshape({-1, tensor.size(-1)});
    return tensor;
  });
  const std::vector<double> low = line(row, "before_low"), high = line(row, "before_high"),
                            clip_low = line(row, "clip_low"), clip_high = line(row, "clip_high");
  const int64_t channels = seen.size(1);
  ASSERT_EQ(low.size(), static_cast<size_t>(channels));
  for (int64_t c = 0; c < channels; ++c) {
    const auto i = static_cast<size_t>(c);
    EXPECT_EQ(low[i], seen.select(1, c).min().item<float>()) << c;
    EXPECT_EQ(high[i], seen.select(1, c).max().item<float>()) << c;
  }

  // The embedding before it has 8 bits, so percentile bounds are those of the float model nearly,
  // in the same unit: they would be off by a whole offset if the fold were undone wrongly.
  for (size_t c = 0; c < low.size(); ++c) {
    if (c == 5) continue;
    const double width = high[c] - low[c];
    EXPECT_NEAR(clip_low[c], low[c], 0.1 * width) << c;
    EXPECT_NEAR(clip_high[c], high[c], 0.1 * width) << c;
  }
  EXPECT_EQ(low[5], high[5]);  // dead
  EXPECT_TRUE(std::isfinite(clip_low[5]) && std::isfinite(clip_high[5]));

  EXPECT_GT(widest_to_median(row, "before"), 5);
  EXPECT_LT(widest_to_median(row, "folded"), 1.5);
}

TEST(ChannelRanges, WithoutFoldOneBoundServesAll) {
  ThreadPool pool(1);
  NodeId norm = -1;
  Workspace ws = uneven_workspace(pool, &norm);
  testing::run_method(ws, "round_to_nearest");
  const json row = row_of(channel_ranges(ws, ws.calibration.count), ws.graph.node(norm).name);
  const std::vector<double> clip = line(row, "clip_high"), high = line(row, "before_high");
  EXPECT_EQ(*std::min_element(clip.begin(), clip.end()),
            *std::max_element(clip.begin(), clip.end()));
  // Min-max: a step from the highest value at most, by the rounding of the zero point.
  const double highest = *std::max_element(high.begin(), high.end());
  const double lowest = *std::min_element(clip.begin(), clip.end());
  EXPECT_NEAR(lowest, highest, (clip[0] - line(row, "clip_low")[0]) / 15);
  EXPECT_GT(widest_to_median(row, "folded"), 5);
}

TEST(ChannelRanges, NothingWithoutSamples) {
  ThreadPool pool(1);
  Workspace ws = testing::tiny_workspace(pool, 4);
  EXPECT_TRUE(channel_ranges(ws, 4).empty());  // no site is quantized
  ws.calibration.count = 0;
  EXPECT_TRUE(channel_ranges(ws, 4).empty());
}

// ---- the record of a real run -------------------------------------------------------------------
const fs::path kImages = "/usr/share/datasets/fashion-mnist";

// In the source tree, where the shipped recipes of a build are.
fs::path demo_model() {
  return find_preset_recipe("repquant_w4a4").parent_path().parent_path() / "models" /
         "demo_vit.onnx";
}

struct RealRun {
  json record;
  Plan plan;
};

RealRun quantize_demo(const fs::path& folder, const std::string& preset) {
  ThreadPool pool(2);
  NullSink sink;
  QuantizeJob job;
  job.model = demo_model();
  job.out = folder / (preset + ".rq.safetensors");
  job.recipe = read_recipe(find_preset_recipe(preset), registry_options);
  job.recipe.samples = 8;
  job.recipe = effective_recipe(job.recipe, registry_options);
  job.data = (kImages / "train-images-idx3-ubyte.gz").string() + "[0:64]";
  job.eval_data = (kImages / "t10k-images-idx3-ubyte.gz").string() + "[0:64]";
  job.preprocess.preset = "fashion_mnist";
  const QuantizeOutcome outcome = quantize_model(job, {sink, pool});
  std::ifstream file(outcome.run_record);
  return {json::parse(file), read_artifact(outcome.artifact)};
}

struct RunRecordOfTheDemo : testing::BrowserTest {
  void SetUp() override {
    if (!fs::is_directory(kImages)) GTEST_SKIP() << "package dataset-fashion-mnist is missing";
    ASSERT_FALSE(folder_.path.empty());
  }
};

int64_t total(const json& codes) {
  const auto counts = codes.get<std::vector<int64_t>>();
  EXPECT_GE(*std::min_element(counts.begin(), counts.end()), 0);
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

void check_layers(const json& record, const Graph& graph) {
  std::map<std::string, std::string> kinds;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (reconstruct::is_layer(node.op)) kinds[node.name] = name_of(node.op);
  }
  double before = 0, after = 0;
  ASSERT_EQ(record["layers"].size(), kinds.size());
  for (const json& row : record["layers"]) {
    SCOPED_TRACE(row["layer"]);
    EXPECT_EQ(row["kind"], kinds.at(row["layer"].get<std::string>()));
    EXPECT_EQ(row["activation_bits"], row["kind"] == "conv" ? 8 : 4);
    EXPECT_EQ(row.contains("weight_bits"), row["kind"] != "multi_head_attention");
    EXPECT_LE(row["cosine"].get<double>(), 1 + 1e-12);
    EXPECT_GT(row["output_mse_before"].get<double>(), 0);
    before += row["sqnr_db_before"].get<double>() / static_cast<double>(kinds.size());
    after += row["sqnr_db"].get<double>() / static_cast<double>(kinds.size());
  }
  EXPECT_GT(after, before + 2);  // what the report shows of the method
}

void check_weights(const json& record, const Graph& graph, const Plan& plan) {
  int64_t of_model = 0, of_record = 0;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.op == OpKind::kLinear || node.op == OpKind::kConv)
      of_model += element_count(graph.value(node.inputs.at(1)).constant->shape());
  }
  size_t at = 0;
  for (const Step& step : plan.steps) {
    if (step.op != "linear") continue;
    const json& row = record["weight_histograms"].at(at++);
    const PlanTensor& weights = plan.tensors.at(step.tensors.at("w"));
    EXPECT_EQ(row["layer"], step.name);
    EXPECT_EQ(row["bits"], weights.bits);
    EXPECT_EQ(row["codes"].size(), size_t{1} << weights.bits);
    EXPECT_EQ(row["low"].get<int>(), -(1 << (weights.bits - 1)));
    EXPECT_EQ(total(row["codes"]), element_count(weights.logical_shape)) << step.name;
    of_record += total(row["codes"]);
  }
  EXPECT_EQ(at, record["weight_histograms"].size());
  EXPECT_EQ(of_record, of_model);
}

void check_softmax(const json& record, const Plan& plan) {
  size_t at = 0;
  for (const Step& step : plan.steps) {
    if (step.op != "attention") continue;
    const json& row = record["softmax_code_histograms"].at(at++);
    const int64_t tokens = plan.buffers.at(static_cast<size_t>(step.in[0])).item_shape.at(0);
    EXPECT_EQ(row["layer"], step.name);
    EXPECT_EQ(row["kind"], "log");
    EXPECT_EQ(row["codes"].size(), 16u);  // 2^4, zero among them
    // One image: every head, query and key.
    EXPECT_EQ(total(row["codes"]), plan.integer(step, "heads") * tokens * tokens) << step.name;
  }
  EXPECT_EQ(at, 6u);
  EXPECT_EQ(at, record["softmax_code_histograms"].size());
}

TEST_F(RunRecordOfTheDemo, AgreesWithModelAndArtifact) {
  const auto [record, plan] = quantize_demo(folder_.path, "repquant_w4a4");
  const Graph graph = load_model(demo_model());
  check_layers(record, graph);
  check_weights(record, graph, plan);
  check_softmax(record, plan);
  EXPECT_EQ(record["artifact"]["digest"], artifact_digest(plan));
  for (const json& row : record["layers"])
    EXPECT_EQ(plan.quality["sqnr_db"][row["layer"].get<std::string>()], row["sqnr_db"]);
  ASSERT_EQ(record["channel_ranges"].size(), 12u);  // two a block
  for (const json& row : record["channel_ranges"]) {
    for (const char* part : {"before", "clip", "folded"}) {
      const std::vector<double> low = line(row, (std::string(part) + "_low").c_str()),
                                high = line(row, (std::string(part) + "_high").c_str());
      ASSERT_EQ(low.size(), 64u);
      for (size_t c = 0; c < low.size(); ++c)
        EXPECT_LE(low[c], high[c]) << row["norm"] << part << c;
    }
  }
}

// As `make demo` has it: the runs side by side, then each alone.
TEST_F(RunRecordOfTheDemo, ReportIsSoundInABrowser) {
  testing::BrowserTest::SetUp();
  if (IsSkipped()) return;
  json runs = json::array(), rows = json::array();
  for (const char* preset : {"round_to_nearest_w4a4", "repquant_w4a4"}) {
    runs.push_back(quantize_demo(folder_.path, preset).record);
    runs.back()["title"] = preset;
    rows.push_back(runs.back()["metrics"]["after"]);
    rows.back()["name"] = preset;
  }
  expect_sound({{"title", "demo"}, {"rows", rows}, {"runs", runs}}, 150, 1000);
  expect_sound(runs[1], 75, 500);
}

}  // namespace
}  // namespace repquant
