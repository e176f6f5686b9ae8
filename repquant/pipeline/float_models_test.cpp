// The float interpreter on real models: against onnxruntime, against PyTorch's outputs stored with
// the assets, and against itself after pattern recognition.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "repquant/core/artifact.h"
#include "repquant/interpret/interpreter.h"
#include "repquant/load/load.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

fs::path repository() { return fs::path(__FILE__).parent_path().parent_path().parent_path(); }

fs::path assets() {
  const char* given = std::getenv("REPQUANT_ASSETS");
  if (given == nullptr) return fs::weakly_canonical(repository() / ".." / "shared" / "assets");
  return fs::path(given).is_absolute() ? fs::path(given)
                                       : fs::weakly_canonical(repository() / given);
}

fs::path build_folder() { return fs::read_symlink("/proc/self/exe").parent_path().parent_path(); }

struct Case {
  std::string name, model;
  // Name of each graph input, and where its values come from: see tools/ort_reference.py; "=NAME"
  // is a tensor of the reference file.
  std::vector<std::pair<std::string, std::string>> inputs;
  std::string reference,
      output;  // file in reference/ and the name of the expected output, or empty
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases = {
      {"deit_tiny",
       "vision/deit_tiny/deit_tiny.onnx",
       {{"input", "=input"}},
       "deit_tiny",
       "logits"},
      {"deit_tiny_legacy", "", {{"input", "=input"}}, "deit_tiny", "logits"},
      {"resnet20",
       "vision/resnet_cifar10/resnet20.onnx",
       {{"input", "=input"}},
       "resnet20",
       "logits"},
      {"mobilenet",
       "vision/mobilenet_v1_025/mobilenet.onnx",
       {{"input", "float:2x3x224x224"}},
       "",
       ""},
      {"imdn", "super_resolution/imdn_x2/imdn_x2.onnx", {{"input", "=input"}}, "imdn_x2", "output"},
      {"ngswin",
       "super_resolution/ngswin_x2/ngswin_x2.onnx",
       {{"input", "=input"}},
       "ngswin_x2",
       "output"},
      {"ddpm", "diffusion/ddpm_mnist/unet.onnx", {{"x", "=x"}, {"t", "=t"}}, "ddpm_mnist", "noise"},
      {"dit",
       "diffusion/dit_mnist/dit.onnx",
       {{"x", "=x"}, {"t", "=t"}, {"y", "=y"}},
       "dit_mnist",
       "noise"},
      {"kwt1", "audio/kwt1/kwt1.onnx", {{"audio", "=audio"}}, "kwt1", "logits"},
      {"stories260K",
       "language/stories260K/stories260K.onnx",
       {{"tokens", "=tokens"}},
       "stories260K",
       "logits"},
      {"tlm", "language/tlm/model.onnx", {{"input_ids", "int:6000:1x64"}}, "", ""},
      {"ocr_classifier",
       "ocr/ch_ppocr_mobile_v2.0_cls_infer.onnx",
       {{"x", "float:2x3x48x192"}},
       "",
       ""},
      {"ocr_recogniser", "ocr/ch_PP-OCRv4_rec_infer.onnx", {{"x", "float:2x3x48x320"}}, "", ""},
      {"ocr_detector", "ocr/ch_PP-OCRv4_det_infer.onnx", {{"x", "=input"}}, "deit_tiny", ""},
  };
  return kCases;
}

// Absolute path of the model; the legacy export is made on demand. Empty when it cannot be had.
fs::path model_path(const Case& c) {
  if (!c.model.empty()) return assets() / c.model;
  const fs::path made = build_folder() / "legacy" / "deit_tiny_legacy.onnx";
  if (fs::exists(made)) return made;
  const std::string command = fmt::format(
      "'{}' '{}' '{}' >/dev/null 2>&1", (repository() / ".venv/bin/python").string(),
      (repository() / "tools/make_legacy_deit.py").string(), made.parent_path().string());
  return std::system(command.c_str()) == 0 && fs::exists(made) ? made : fs::path();
}

// What onnxruntime computes, kept in the build folder. Empty when it cannot be had.
std::map<std::string, Tensor> onnxruntime_outputs(const Case& c, const fs::path& model) {
  const fs::path out = build_folder() / "ort_reference" / (c.name + ".safetensors");
  const fs::path script = repository() / "tools/ort_reference.py";
  const bool fresh = fs::exists(out) && fs::last_write_time(out) > fs::last_write_time(model) &&
                     fs::last_write_time(out) > fs::last_write_time(script) &&
                     fs::last_write_time(out) > fs::last_write_time(__FILE__);
  if (!fresh) {
    fs::create_directories(out.parent_path());
    std::string command =
        fmt::format("'{}' '{}' '{}' '{}'", (repository() / ".venv/bin/python").string(),
                    script.string(), model.string(), out.string());
    for (const auto& [name, source] : c.inputs) {
      const std::string file = (assets() / "reference" / (c.reference + ".safetensors")).string();
      command +=
          fmt::format(" '{}={}'", name,
                      source[0] == '=' ? fmt::format("{}:{}", file, source.substr(1)) : source);
    }
    if (std::system(command.c_str()) != 0) return {};
  }
  return read_safetensors(out).tensors;
}

bool is_product(OpKind op) {
  switch (op) {
    case OpKind::kLinear:
    case OpKind::kMatMul:
    case OpKind::kGemm:
    case OpKind::kConv:
    case OpKind::kConvTranspose:
    case OpKind::kLayerNorm:
    case OpKind::kMultiHeadAttention:
      return true;
    default:
      return false;
  }
}

// Terms of the longest sum among the products with constant weights.
double longest_sum(const Graph& graph) {
  int64_t longest = 1;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (!is_product(node.op) || node.inputs.size() < 2 || !graph.is_constant(node.inputs[1]))
      continue;
    const Shape& shape = graph.value(node.inputs[1]).constant->shape();
    int64_t terms = 1;
    if (node.op == OpKind::kConv) terms = element_count(std::span(shape).subspan(1));
    else
      for (const int64_t size : shape) terms = std::max(terms, size);
    longest = std::max(longest, terms);
  }
  return static_cast<double>(longest);
}

// Products on the longest path from input to output.
double depth(const Graph& graph) {
  std::map<ValueId, int> depth;
  int deepest = 1;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    int here = 0;
    for (const ValueId input : node.inputs) here = std::max(here, depth[input]);
    if (is_product(node.op)) ++here;
    for (const ValueId output : node.outputs) depth[output] = here;
    deepest = std::max(deepest, here);
  }
  return deepest;
}

// Rounding errors of a sum of K terms add up like a random walk, sqrt(K) u with u = 2^-24; those of
// D products in a row like another, and the two evaluations compared double it: 2 u sqrt(K D) of
// the largest output. Where the output is a sigmoid, of its range: onnxruntime's is a rational
// function with an absolute error near u.
double rounding_bound(const Graph& graph, const at::Tensor& expected) {
  double scale = expected.abs().max().item<double>();
  for (const ValueId output : graph.outputs) {
    if (graph.node(graph.value(output).producer).op == OpKind::kSigmoid) scale = 1.0;
  }
  return 2 * std::ldexp(std::sqrt(longest_sum(graph) * depth(graph)), -24) * scale;
}

void expect_close(const std::string& against, const Graph& graph, const at::Tensor& got,
                  const at::Tensor& expected) {
  ASSERT_EQ(got.sizes(), expected.sizes());
  const double largest =
      (got.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>();
  const double bound = rounding_bound(graph, expected);
  testing::Test::RecordProperty(against, fmt::format("{:.2e} of {:.2e}", largest, bound));
  EXPECT_LE(largest, bound) << "largest output " << expected.abs().max().item<double>();
}

class FloatModels : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!fs::exists(assets())) GTEST_SKIP() << "assets missing: " << assets();
    path_ = model_path(GetParam());
    if (path_.empty())
      GTEST_SKIP() << "assets missing: legacy export (Python packages torch, onnx, timm)";
    at::set_num_threads(1);
  }
  std::vector<at::Tensor> run(const Graph& graph, const std::vector<at::Tensor>& inputs) const {
    const torch::NoGradGuard no_grad;
    const WeightMap weights = load_weights(graph);
    return Interpreter(graph, weights).run(inputs);
  }
  fs::path path_;
};

TEST_P(FloatModels, AgreesWithOnnxruntime) {
  const auto stored = onnxruntime_outputs(GetParam(), path_);
  if (stored.empty())
    GTEST_SKIP() << "assets missing: onnxruntime (Python packages onnxruntime, safetensors)";
  const Graph plain = load_plain(path_), recognised = load_model(path_);
  std::vector<at::Tensor> inputs;
  for (size_t i = 0; i < plain.inputs.size(); ++i)
    inputs.push_back(to_aten(stored.at(fmt::format("in.{}", i))));
  const auto outputs = run(plain, inputs), after = run(recognised, inputs);
  ASSERT_EQ(outputs.size(), plain.outputs.size());
  ASSERT_EQ(after.size(), plain.outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    SCOPED_TRACE(i);
    expect_close("onnxruntime", plain, outputs[i], to_aten(stored.at(fmt::format("out.{}", i))));
    expect_close("recognised", plain, after[i], outputs[i]);  // another order of sums at most
  }
}

class StoredOutputs : public FloatModels {};

TEST_P(StoredOutputs, AgreesWithPyTorch) {
  const Case& c = GetParam();
  const auto stored =
      read_safetensors(assets() / "reference" / (c.reference + ".safetensors")).tensors;
  const Graph graph = load_model(path_);
  std::vector<at::Tensor> inputs;
  for (const auto& [name, source] : c.inputs) inputs.push_back(to_aten(stored.at(name)));
  expect_close("pytorch", load_plain(path_), run(graph, inputs)[0], to_aten(stored.at(c.output)));
}

// The protocol of the assets: x / 127.5 - 1 of the two stored images.
TEST(MobileNet, AgreesWithPyTorch) {
  if (!fs::exists(assets())) GTEST_SKIP() << "assets missing: " << assets();
  const auto images = read_safetensors(assets() / "reference/deit_tiny.safetensors").tensors;
  const auto stored = read_safetensors(assets() / "reference/mobilenet_v1_025.safetensors").tensors;
  const Graph graph = load_model(assets() / "vision/mobilenet_v1_025/mobilenet.onnx");
  const at::Tensor x =
      to_aten(images.at("pixels")).to(at::kFloat).permute({0, 3, 1, 2}) / 127.5 - 1;
  const WeightMap weights = load_weights(graph);
  const auto outputs = Interpreter(graph, weights).run(std::vector<at::Tensor>{x.contiguous()});
  expect_close("pytorch", graph, outputs[0], to_aten(stored.at("logits")));
}

std::vector<Case> cases_with_output() {
  std::vector<Case> chosen;
  for (const Case& c : cases()) {
    if (!c.output.empty()) chosen.push_back(c);
  }
  return chosen;
}

INSTANTIATE_TEST_SUITE_P(Assets, StoredOutputs, testing::ValuesIn(cases_with_output()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Assets, FloatModels, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace repquant
