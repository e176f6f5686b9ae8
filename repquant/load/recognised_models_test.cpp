// What recognition makes of real files.
#include <cmath>
#include <cstdlib>
#include <ctime>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/graph/recognise/recognise.h"
#include "repquant/graph/reference/reference.h"
#include "repquant/graph/testing.h"
#include "repquant/load/load.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;
using graph_testing::assets;
using graph_testing::repository;

constexpr const char* kDeit = "vision/deit_tiny/deit_tiny.onnx";

// Made on demand in the build folder. Empty when it cannot be had.
fs::path legacy_deit() {
  const fs::path made = fs::read_symlink("/proc/self/exe").parent_path().parent_path() /
                        "legacy/deit_tiny_legacy.onnx";
  if (fs::exists(made)) return made;
  const std::string command = fmt::format(
      "'{}' '{}' '{}' >/dev/null 2>&1", (repository() / ".venv/bin/python").string(),
      (repository() / "tools/make_legacy_deit.py").string(), made.parent_path().string());
  return std::system(command.c_str()) == 0 && fs::exists(made) ? made : fs::path();
}

std::map<std::string, int> ops_of(const Graph& graph) {
  std::map<std::string, int> count;
  for (const NodeId id : graph.order()) ++count[std::string(name_of(graph.node(id).op))];
  return count;
}

std::string attributes_text(const Node& node) {
  std::string text;
  for (const auto& [name, value] : node.attrs.all()) {
    std::string shown;
    if (const auto* i = std::get_if<int64_t>(&value)) shown = fmt::format("{}", *i);
    if (const auto* f = std::get_if<float>(&value)) shown = fmt::format("{}", *f);
    if (const auto* s = std::get_if<std::string>(&value)) shown = *s;
    if (const auto* v = std::get_if<std::vector<int64_t>>(&value)) shown = to_string(*v);
    text += fmt::format("{}={} ", name, shown);
  }
  return text;
}

// One line a node with its wiring by position, and every constant it reads.
struct Canonical {
  std::vector<std::string> lines;
  std::vector<const Tensor*> constants;
};

Canonical canonical(const Graph& graph) {
  Canonical out;
  std::map<ValueId, std::string> names;
  for (size_t i = 0; i < graph.inputs.size(); ++i) names[graph.inputs[i]] = fmt::format("in{}", i);
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    std::string line = fmt::format("{} {}", name_of(node.op), attributes_text(node));
    for (const ValueId input : node.inputs) {
      if (graph.is_constant(input)) {
        out.constants.push_back(&*graph.value(input).constant);
        line += fmt::format(" {}", to_string(out.constants.back()->shape()));
      } else {
        line += fmt::format(" {}", names[input]);
      }
    }
    for (const ValueId output : node.outputs)
      names.emplace(output, fmt::format("v{}", names.size()));
    out.lines.push_back(line);
  }
  for (const ValueId output : graph.outputs)
    out.lines.push_back(fmt::format("output {}", names[output]));
  return out;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return INFINITY;
  if (a.dtype() != DType::kF32)
    return std::memcmp(a.data(), b.data(), a.bytes()) == 0 ? 0 : INFINITY;
  double worst = 0;
  for (size_t i = 0; i < a.as<float>().size(); ++i) {
    worst = std::fmax(worst, std::fabs(static_cast<double>(a.as<float>()[i]) - b.as<float>()[i]));
  }
  return worst;
}

TEST(RecognisedModels, BothExportsOfDeitAreOneGraph) {
  if (!fs::exists(assets())) GTEST_SKIP() << "assets missing: " << assets();
  const fs::path legacy = legacy_deit();
  if (legacy.empty())
    GTEST_SKIP() << "assets missing: legacy export (Python packages torch, onnx, timm)";
  const Graph a = load_model(assets() / kDeit), b = load_model(legacy);
  const Canonical x = canonical(a), y = canonical(b);
  EXPECT_EQ(x.lines, y.lines);
  ASSERT_EQ(x.constants.size(), y.constants.size());
  for (size_t i = 0; i < x.constants.size(); ++i)
    EXPECT_LE(largest_difference(*x.constants[i], *y.constants[i]), 1e-6) << i;
  const std::map<std::string, int> expected = {
      {"add", 25},        {"concat", 2},  {"conv", 1},
      {"expand", 1},      {"gather", 1},  {"gelu", 12},
      {"layer_norm", 25}, {"linear", 49}, {"multi_head_attention", 12},
      {"reshape", 1},     {"shape", 1},   {"split", 12},
      {"transpose", 1}};
  EXPECT_EQ(ops_of(a), expected);
}

struct Model {
  std::string name, path;
  std::map<std::string, int> found;   // of the recognised graph
  std::vector<std::string> gone;      // ops it has no more
  double seconds;                     // of processor time that recognition may take
};

void PrintTo(const Model& model, std::ostream* out) { *out << model.name; }

const std::vector<Model>& models() {
  static const std::vector<Model> kModels = {
      {"deit_tiny",
       kDeit,
       {{"linear", 49}, {"multi_head_attention", 12}, {"gelu", 12}, {"layer_norm", 25}},
       {"matmul", "gemm", "softmax"},
       1},
      {"dit",
       "diffusion/dit_mnist/dit.onnx",
       {{"linear", 40}, {"multi_head_attention", 3}, {"layer_norm", 7}},
       {"matmul", "gemm", "softmax"},
       1},
      {"kwt1",
       "audio/kwt1/kwt1.onnx",
       {{"linear", 78}, {"multi_head_attention", 12}, {"gelu", 12}, {"layer_norm", 24}},
       {"matmul", "gemm", "softmax", "div"},
       1},
      {"tlm",
       "language/tlm/model.onnx",
       {{"linear", 5}, {"multi_head_attention", 1}, {"gelu", 1}, {"layer_norm", 3}, {"split", 1}},
       {"matmul", "erf", "where", "softmax"},
       1},
      {"stories260K",
       "language/stories260K/stories260K.onnx",
       {{"linear", 36}, {"multi_head_attention", 5}, {"rms_norm", 11}, {"silu", 5}},
       {"matmul", "where", "range", "expand", "pow", "sigmoid"},
       1},
      {"ngswin",
       "super_resolution/ngswin_x2/ngswin_x2.onnx",
       {{"linear", 165}, {"multi_head_attention", 60}, {"gelu", 21}, {"layer_norm", 44}},
       {"matmul", "softmax", "not", "cast"},
       5},
      {"resnet20",
       "vision/resnet_cifar10/resnet20.onnx",
       {{"linear", 1}, {"conv", 19}},
       {"batch_norm", "gemm"},
       1},
      {"mobilenet",
       "vision/mobilenet_v1_025/mobilenet.onnx",
       {{"linear", 1}, {"conv", 27}},
       {"batch_norm", "gemm"},
       1},
      {"imdn", "super_resolution/imdn_x2/imdn_x2.onnx", {{"conv", 46}, {"split", 18}}, {}, 1},
      {"ddpm", "diffusion/ddpm_mnist/unet.onnx", {{"linear", 10}, {"layer_norm", 14}}, {"gemm"}, 1},
      {"ocr_recogniser",
       "ocr/ch_PP-OCRv4_rec_infer.onnx",
       {{"linear", 9}, {"multi_head_attention", 2}, {"layer_norm", 5}, {"silu", 7}, {"softmax", 1}},
       {"matmul", "batch_norm", "sqrt", "shape"},
       1},
      {"ocr_detector", "ocr/ch_PP-OCRv4_det_infer.onnx", {{"conv", 64}}, {"batch_norm"}, 1},
      {"ocr_classifier",
       "ocr/ch_ppocr_mobile_v2.0_cls_infer.onnx",
       {{"linear", 1}, {"conv", 53}},
       {"batch_norm", "matmul"},
       1},
  };
  return kModels;
}

class Recognised : public testing::TestWithParam<Model> {};

TEST_P(Recognised, HasTheExpectedOps) {
  const Model& model = GetParam();
  if (!fs::exists(assets())) GTEST_SKIP() << "assets missing: " << assets();
  Graph graph = load_model(assets() / model.path);
  const auto ops = ops_of(graph);
  for (const auto& [op, count] : model.found)
    EXPECT_EQ(ops.contains(op) ? ops.at(op) : 0, count) << op;
  for (const std::string& op : model.gone) EXPECT_FALSE(ops.contains(op)) << op;

  Graph plain = load_plain(assets() / model.path);
  const std::clock_t start = std::clock();
  const RecogniseReport report = recognise(plain);
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__)
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, model.seconds);
#else
  (void)start;
#endif
  plain.verify();
  EXPECT_THAT(report.refused, testing::IsEmpty());

  const std::string once = print(graph);
  EXPECT_THAT(recognise(graph).found, testing::IsEmpty());
  EXPECT_EQ(print(graph), once);
}

INSTANTIATE_TEST_SUITE_P(All, Recognised, testing::ValuesIn(models()),
                         [](const auto& info) { return info.param.name; });

// Deterministic inputs: floats in [0, 2), integers below 10.
Tensor input_for(const Value& value, int64_t batch, int64_t length) {
  Shape shape;
  for (const Dim& dim : *value.shape)
    shape.push_back(dim.known() ? dim.size : shape.empty() ? batch : length);
  Tensor tensor(value.dtype, shape);
  uint32_t state = 1;
  for (int64_t i = 0; i < tensor.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    if (value.dtype == DType::kF32)
      tensor.as<float>()[static_cast<size_t>(i)] = static_cast<float>(state >> 8) * 0x1p-23F;
    else tensor.as<int64_t>()[static_cast<size_t>(i)] = (state >> 8) % 10;
  }
  return tensor;
}

Tensor first_output(const Graph& graph, int64_t batch, int64_t length) {
  reference::Bindings bindings;
  for (const ValueId id : graph.inputs) bindings[id] = input_for(graph.value(id), batch, length);
  EXPECT_TRUE(reference::evaluate(graph, graph.order(), bindings));
  return bindings.at(graph.outputs[0]);
}

struct SmallModel {
  std::string path;
  int64_t batch, length;
};

// Both sides round f32 once a node, at other places; 1e-5 of the largest output is what recognition
// may cost by its own rule.
TEST(RecognisedModels, ComputeTheSame) {
  if (!fs::exists(assets())) GTEST_SKIP() << "assets missing: " << assets();
  const std::vector<SmallModel> small = {{"diffusion/dit_mnist/dit.onnx", 2, 0},
                                         {"language/tlm/model.onnx", 1, 0},
                                         {"language/stories260K/stories260K.onnx", 2, 17},
                                         {"audio/kwt1/kwt1.onnx", 2, 0}};
  for (const SmallModel& model : small) {
    SCOPED_TRACE(model.path);
    const Graph plain = load_plain(assets() / model.path),
                graph = load_model(assets() / model.path);
    const Tensor a = first_output(plain, model.batch, model.length),
                 b = first_output(graph, model.batch, model.length);
    double peak = 0;
    for (const float v : a.as<float>()) peak = std::fmax(peak, std::fabs(v));
    EXPECT_LE(largest_difference(a, b), 1e-5 * peak);
  }
}

}   // namespace
}   // namespace repquant
