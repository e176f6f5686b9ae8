#include "repquant/load/load.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "repquant/graph/testing.h"
#include "repquant/load/onnx/onnx.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

struct Asset {
  const char* path;
  size_t nodes;            // of the file, constants apart, after the rewriting of its opset
  size_t unknown;          // values with a dimension that has neither size nor name
};

constexpr Asset kAssets[] = {
    {"vision/deit_tiny/deit_tiny.onnx", 347, 0},
    {"vision/resnet_cifar10/resnet20.onnx", 76, 0},
    {"vision/mobilenet_v1_025/mobilenet.onnx", 88, 0},
    {"super_resolution/imdn_x2/imdn_x2.onnx", 152, 0},
    {"super_resolution/ngswin_x2/ngswin_x2.onnx", 3250, 0},
    {"diffusion/ddpm_mnist/unet.onnx", 131, 0},
    {"diffusion/dit_mnist/dit.onnx", 171, 0},
    {"audio/kwt1/kwt1.onnx", 254, 0},
    {"language/stories260K/stories260K.onnx", 374, 0},
    {"language/tlm/model.onnx", 38, 0},
    {"ocr/ch_PP-OCRv4_rec_infer.onnx", 440, 0},
    // Feature maps of halved and doubled odd sizes meet: equal only when H and W divide by 32.
    {"ocr/ch_PP-OCRv4_det_infer.onnx", 330, 16},
    {"ocr/ch_ppocr_mobile_v2.0_cls_infer.onnx", 221, 0},
};

size_t unknown_values(const Graph& graph) {
  size_t count = 0;
  for (const NodeId id : graph.order()) {
    for (const ValueId v : graph.node(id).outputs) {
      if (v == kNoValue) continue;
      const auto& shape = graph.value(v).shape;
      bool unknown = !shape.has_value();
      for (size_t d = 0; shape && d < shape->size(); ++d)
        unknown |= !(*shape)[d].known() && (*shape)[d].symbol.empty();
      count += unknown;
    }
  }
  return count;
}

TEST(LoadAssets, EveryFileImportsInfersAndPrints) {
  if (!fs::is_directory(graph_testing::assets()))
    GTEST_SKIP() << "assets missing: " << graph_testing::assets();
  for (const Asset& asset : kAssets) {
    SCOPED_TRACE(asset.path);
    Graph graph = load_plain(graph_testing::assets() / asset.path);
    graph.verify();
    EXPECT_EQ(graph.order().size(), asset.nodes);
    EXPECT_EQ(unknown_values(graph), asset.unknown);
    const std::string text = print(graph);
    // A line a node, input and output, and the title.
    EXPECT_EQ(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')),
              1 + graph.inputs.size() + graph.order().size() + graph.outputs.size());
  }
}

TEST(LoadAssets, EveryFileIsRecognisedWithoutDamage) {
  if (!fs::is_directory(graph_testing::assets()))
    GTEST_SKIP() << "assets missing: " << graph_testing::assets();
  for (const Asset& asset : kAssets) {
    SCOPED_TRACE(asset.path);
    const Graph plain = load_plain(graph_testing::assets() / asset.path);
    const Graph graph = load_model(graph_testing::assets() / asset.path);
    // A transposed convolution becomes a convolution, depth_to_space and, with pads, a slice.
    size_t transposed = 0;
    for (const NodeId id : plain.order())
      transposed += plain.node(id).op == OpKind::kConvTranspose ? 1 : 0;
    EXPECT_LE(graph.order().size(), asset.nodes + 2 * transposed);
    ASSERT_EQ(graph.outputs.size(), plain.outputs.size());
    for (size_t i = 0; i < graph.outputs.size(); ++i) {
      EXPECT_EQ(graph_testing::shape_text(graph, graph.outputs[i]),
                graph_testing::shape_text(plain, plain.outputs[i]));
    }
    for (const NodeId id : graph.order()) EXPECT_NE(graph.node(id).op, OpKind::kBatchNorm);
  }
}

TEST(LoadAssets, DeitTinyHasItsBlocks) {
  if (!fs::is_directory(graph_testing::assets()))
    GTEST_SKIP() << "assets missing: " << graph_testing::assets();
  const Graph graph = load_model(graph_testing::assets() / "vision/deit_tiny/deit_tiny.onnx");
  std::vector<std::string> names;
  for (const NodeId id : graph.order()) names.push_back(graph.node(id).name);
  for (int block = 0; block < 12; ++block) {
    for (const char* part :
         {"norm1", "attn.qkv", "attn", "attn.proj", "norm2", "mlp.fc1", "mlp.act", "mlp.fc2"}) {
      const std::string name = "blocks." + std::to_string(block) + "." + part;
      EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
    }
  }
  EXPECT_EQ(graph_testing::shape_text(graph, graph.outputs[0]), "[batch, 1000]");
}

TEST(Load, AMissingFileAndAFolderAreNamed) {
  try {
    load_model("no/such/model.onnx");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(error.what()).find("no/such/model.onnx"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(load_model(fs::temp_directory_path()), Error);
}

}  // namespace
}  // namespace repquant
