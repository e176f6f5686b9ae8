// What the commands refuse: one message, the exit code, nothing half-written.
#include <algorithm>
#include <functional>
#include <limits>
#include <random>

#include <onnx/onnx_pb.h>

#include "cli/testing_demo.h"
#include "repquant/data/testing.h"
#include "repquant/data/testing_fixtures.h"

namespace repquant::cli {
namespace {

using namespace testing;

class BadInput : public Demo {
 protected:
  // Runs `words`, which name an output in `folder`, and sees that nothing there changed.
  static Ended refused(const Folder& folder, const std::vector<std::string>& words, int exit,
                       const std::string& part, uint64_t limit_bytes = 0) {
    const auto before = contents(folder);
    const Ended ended = run(words, limit_bytes);
    EXPECT_EQ(ended.exit, exit) << ended.err;
    expect_message(ended, part);
    EXPECT_TRUE(contents(folder) == before) << part << ": the folder changed";
    return ended;
  }
  static std::map<std::string, std::string> contents(const Folder& folder) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
      const std::string name = entry.path().lexically_relative(folder.path());
      files[name] = entry.is_regular_file() ? read_text(entry.path()) : "";
    }
    return files;
  }
  static std::vector<std::string> quantize(const std::string& model, const std::string& out,
                                           const std::string& images,
                                           const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{kTool, "quantize", model, "-o", out, "--data", images};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
};

// ---- models -------------------------------------------------------------------------------------
onnx::ModelProto demo_model() {
  onnx::ModelProto model;
  const bool parsed = model.ParseFromString(read_text(kModel));
  EXPECT_TRUE(parsed);
  return model;
}

onnx::TensorProto& weight(onnx::ModelProto& model, const std::string& name) {
  for (onnx::TensorProto& tensor : *model.mutable_graph()->mutable_initializer()) {
    if (tensor.name() == name) return tensor;
  }
  ADD_FAILURE() << name;
  return *model.mutable_graph()->mutable_initializer(0);
}

void set_value(onnx::TensorProto& tensor, int64_t index, float value) {
  ASSERT_LT(static_cast<size_t>(index) * sizeof(float), tensor.raw_data().size()) << tensor.name();
  tensor.mutable_raw_data()->replace(static_cast<size_t>(index) * sizeof(float), sizeof(float),
                                     reinterpret_cast<const char*>(&value), sizeof(float));
}

// Expand to `shape`, then a mean over everything and a classifier of 10.
std::string expanding_model(const std::vector<int64_t>& shape) {
  onnx::ModelProto model = demo_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.clear_node();
  graph.clear_initializer();
  graph.clear_value_info();
  const auto node = [&](const char* op, const std::vector<std::string>& in, const char* out) {
    onnx::NodeProto& made = *graph.add_node();
    made.set_op_type(op);
    made.set_name(out);
    for (const std::string& name : in) made.add_input(name);
    made.add_output(out);
    return &made;
  };
  node("Expand", {graph.input(0).name(), "shape"}, "wide");
  node("Relu", {"wide"}, "relu");
  node("GlobalAveragePool", {"relu"}, "pooled");
  node("Flatten", {"pooled"}, graph.output(0).name().c_str());
  onnx::TensorProto& constant = *graph.add_initializer();
  constant.set_name("shape");
  constant.set_data_type(onnx::TensorProto::INT64);
  constant.add_dims(static_cast<int64_t>(shape.size()));
  for (const int64_t size : shape) constant.add_int64_data(size);
  return model.SerializeAsString();
}

TEST_F(BadInput, CyclicGraph) {
  const Folder folder;
  onnx::ModelProto model = demo_model();
  auto& nodes = *model.mutable_graph()->mutable_node();
  const auto first = std::find_if(nodes.begin(), nodes.end(),
                                  [](const auto& node) { return node.op_type() == "Add"; });
  first->set_input(0, nodes[nodes.size() - 1].output(0));
  write_text(folder.file("m.onnx"), model.SerializeAsString());
  refused(folder, quantize(folder.file("m.onnx"), folder.file("a.rq.safetensors"), data()), kInput,
          "expected a graph without cycles");
  refused(folder, {kTool, "inspect", folder.file("m.onnx")}, kInput, "cycles");
}

TEST_F(BadInput, ShapesThatOverflow) {
  const Folder folder;
  const auto expect = [&](const std::string& bytes, int exit, const std::string& part) {
    write_text(folder.file("m.onnx"), bytes);
    refused(folder,
            quantize(folder.file("m.onnx"), folder.file("a.rq.safetensors"), data(),
                     {"--samples", "2"}),
            exit, part);
  };
  onnx::ModelProto model = demo_model();
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, int64_t{1} << 62);
  expect(model.SerializeAsString(), kInput, "expected a shape that fits into 64 bits");
  model = demo_model();
  model.mutable_graph()->mutable_initializer(0)->set_dims(0, -5);
  expect(model.SerializeAsString(), kInput, "-5");
  expect(expanding_model({int64_t{1} << 40, int64_t{1} << 40, 28, 28}), kInput, "64 bits");
  // Fits into 64 bits and into no machine.
  expect(expanding_model({1, int64_t{1} << 33, 28, 28}), kCapacity, "memory");
}

TEST_F(BadInput, ModelsWithTwoOutputs) {
  const Folder folder;
  onnx::ModelProto model = demo_model();
  model.mutable_graph()->add_output()->set_name(model.graph().node(9).output(0));
  write_text(folder.file("m.onnx"), model.SerializeAsString());
  const Ended ended =
      refused(folder, quantize(folder.file("m.onnx"), folder.file("a.rq.safetensors"), data()),
              kUnsupported, "quantize: model: expected one output, got 2: \"");
  EXPECT_NE(ended.err.find(", \"" + model.graph().node(9).output(0) + "\""), std::string::npos);
  EXPECT_EQ(ended.err.find("block "), std::string::npos) << "calibrated first";
}

TEST_F(BadInput, ModelsWithoutALayerToQuantize) {
  const Folder folder;
  onnx::ModelProto model = demo_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.clear_node();
  graph.clear_initializer();
  graph.clear_value_info();
  graph.mutable_output(0)->clear_type();
  onnx::NodeProto& node = *graph.add_node();
  node.set_op_type("Relu");
  node.add_input(graph.input(0).name());
  node.add_output(graph.output(0).name());
  write_text(folder.file("m.onnx"), model.SerializeAsString());
  std::vector<std::string> words = quantize(folder.file("m.onnx"), folder.file("a.rq.safetensors"),
                                            data(), {"--strict", "--json"});
  for (const char* more : {"--method=round_to_nearest", "--dry-run"}) {
    words.push_back(more);
    const Ended ended = run(words);
    EXPECT_EQ(ended.exit, kWarnings) << ended.err;
    EXPECT_EQ(ended.json()["warnings"].back()["code"], "W003") << ended.out;
  }
}

TEST_F(BadInput, TruncatedModels) {
  const Folder folder;
  const std::string bytes = read_text(kModel);
  for (const size_t part : {0, 1, 3, 5, 7}) {
    write_text(folder.file("m.onnx"), bytes.substr(0, bytes.size() * part / 8));
    refused(folder, {kTool, "inspect", folder.file("m.onnx")}, kInput, "load onnx: ");
  }
}

// ONNX has no checksums: a flipped weight may pass. Structure may not be misread silently or crash.
TEST_F(BadInput, ModelsWithFlippedBits) {
  const Folder folder;
  const std::string bytes = read_text(kModel), structure = demo_model().graph().node(0).name();
  const size_t first = bytes.find(structure);
  ASSERT_NE(first, std::string::npos);
  std::mt19937 random(11);
  int refusals = 0;
  for (int i = 0; i < 16; ++i) {
    std::string damaged = bytes;
    const size_t at = first + random() % 8192;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
    write_text(folder.file("m.onnx"), damaged);
    const Ended ended = run({kTool, "inspect", folder.file("m.onnx")});
    if (ended.exit == kDone) continue;
    ++refusals;
    EXPECT_TRUE(ended.exit == kInput || ended.exit == kUnsupported) << at << ended.exit;
    expect_message(ended, "");
  }
  EXPECT_GE(refusals, 3);
}

TEST_F(BadInput, DamagedArtifacts) {
  const Folder folder;
  const std::string bytes = read_text(reference()), broken = folder.file("a.rq.safetensors");
  const std::vector<std::vector<std::string>> calls{
      eval(broken),
      {kTool, "verify", broken, "--data", other()},
      {kTool, "run", broken, "--input", other()},
      {kTool, "compare", kModel, broken, "--data", other()},
      {kTool, "inspect", broken}};
  std::mt19937 random(3);
  for (size_t i = 0; i < calls.size(); ++i) {
    std::string damaged = bytes;
    const size_t at = random() % bytes.size();
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
    write_text(broken, damaged);
    refused(folder, calls[i], kInput, "a.rq.safetensors");
    write_text(broken, bytes.substr(0, random() % bytes.size()));
    refused(folder, calls[i], kInput, "a.rq.safetensors");
  }
  write_text(broken, bytes + "x");
  refused(folder, calls.back(), kInput, "a.rq.safetensors");
}

TEST_F(BadInput, WeightsThatAreNoNumbers) {
  const Folder folder;
  onnx::ModelProto model = demo_model();
  set_value(weight(model, "blocks.1.mlp.fc1.bias"), 3, std::numeric_limits<float>::quiet_NaN());
  write_text(folder.file("nan.onnx"), model.SerializeAsString());
  refused(folder, quantize(folder.file("nan.onnx"), folder.file("a.rq.safetensors"), data()),
          kInput, "NaN");
  // Infinity alone is what masks are made of; here it becomes NaN.
  model = demo_model();
  set_value(weight(model, "blocks.1.mlp.fc1.bias"), 3, std::numeric_limits<float>::infinity());
  write_text(folder.file("inf.onnx"), model.SerializeAsString());
  const Ended ended =
      refused(folder, quantize(folder.file("inf.onnx"), folder.file("a.rq.safetensors"), data()),
              kInput, "answers NaN for calibration item");
  EXPECT_NE(ended.err.find("node \"blocks.1."), std::string::npos) << ended.err;
}

// Gains of zero, weights of zero, a unit that never fires, images of one colour: no error, every
// figure finite, and the artifact answers what the simulator answers (quantize verifies).
TEST_F(BadInput, DeadAndConstantChannelsJustWork) {
  const Folder folder;
  onnx::ModelProto model = demo_model();
  for (const char* norm : {"blocks.0.norm2.", "blocks.1.norm1."}) {
    set_value(weight(model, norm + std::string("weight")), 5, 0);
    set_value(weight(model, norm + std::string("weight")), 9, 0);
    set_value(weight(model, norm + std::string("bias")), 9, 0);
  }
  for (int64_t i = 0; i < 64; ++i) set_value(weight(model, "blocks.2.norm1.weight"), i, 0);
  for (int64_t i = 0; i < 256; ++i) set_value(weight(model, "blocks.3.mlp.fc1.bias"), i, -60);
  for (int64_t i = 0; i < 16; ++i) set_value(weight(model, "patch_embed.weight"), i, 0);
  set_value(weight(model, "patch_embed.bias"), 0, 0);
  write_text(folder.file("dead.onnx"), model.SerializeAsString());
  write_npy(folder.file("grey.npy"), std::as_const(*[] {
                                       static Tensor images(DType::kF32, {4, 1, 28, 28});
                                       std::fill_n(images.as<float>().begin(), images.size(),
                                                   0.25f);
                                       return &images;
                                     }())
                                         .view());
  for (const char* preset : {"repquant_w4a4", "repq_vit_w4a4", "round_to_nearest_w3a3"}) {
    for (const std::string& images : {data(), folder.file("grey.npy")}) {
      const std::string out = folder.file("a.rq.safetensors");
      const Ended ended = run(quantize(folder.file("dead.onnx"), out, images,
                                       {"--preset", preset, "--force", "--json"}));
      ASSERT_EQ(ended.exit, 0) << preset << ended.err;
      const nlohmann::json measurements = ended.json()["measurements"];
      EXPECT_GT(measurements.size(), 50u);
      for (const auto& row : measurements) EXPECT_TRUE(row["value"].is_number()) << preset << row;
    }
  }
}

// ---- data ---------------------------------------------------------------------------------------
void write_jpeg(const std::string& path) {
  ::repquant::testing::write_bytes(path,
                                   ::repquant::testing::from_hex(::repquant::testing::kGreyJpeg));
}

TEST_F(BadInput, FoldersWithFilesThatAreNoImages) {
  const Folder folder;
  const std::string images = folder.file("images"), out = folder.file("a.rq.safetensors");
  fs::create_directory(images);
  const std::vector<std::string> words = quantize(kModel, out, images, {"--resize", "28"});
  refused(folder, words, kUsage, "got an empty folder");
  write_text(images + "/notes.md", "text");
  refused(folder, words, kUsage, "got none among 1 files");
  write_jpeg(images + "/a.jpg");
  write_text(images + "/b.jpg", "text with the name of an image");
  refused(folder, words, kInput, "b.jpg\": expected a JPEG or PNG image, got something else");
  write_text(images + "/b.jpg", "");
  refused(folder, words, kInput, "got an empty file");
  fs::remove(images + "/b.jpg");
  const std::string jpeg = read_text(images + "/a.jpg");
  write_text(images + "/b.jpg", jpeg.substr(0, jpeg.size() / 2));
  refused(folder, words, kInput, "b.jpg");
  fs::remove(images + "/b.jpg");
  fs::create_symlink(images + "/nowhere", images + "/b.jpg");  // unreadable, even for root
  refused(folder, words, kInput, "b.jpg");
  fs::remove(images + "/b.jpg");
  const Ended ended = run(words);  // what is left: one image, and a file without its name
  EXPECT_EQ(ended.exit, 0) << ended.err;
  EXPECT_NE(ended.err.find("1 found"), std::string::npos) << ended.err;
}

TEST_F(BadInput, ArraysThatDoNotFit) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors"), array = folder.file("d.npy");
  const auto expect = [&](const Shape& shape, float value, const std::string& part) {
    Tensor images(DType::kF32, shape);
    std::fill_n(images.as<float>().begin(), images.size(), value);
    write_npy(array, std::as_const(images).view());
    const Ended ended = run(quantize(kModel, out, array));
    EXPECT_TRUE(ended.exit == kInput || ended.exit == kUsage) << ended.exit << ended.err;
    expect_message(ended, part);
    EXPECT_EQ(folder.names().size(), 1u);
  };
  expect({3, 1, 28, 28}, std::numeric_limits<float>::quiet_NaN(), "expected finite numbers");
  expect({3, 1, 28, 27}, 0, "expected [batch, 1, 28, 28], got [1, 1, 28, 27]");
  expect({0, 1, 28, 28}, 0, "at least one item");
  const auto score = [&](const ConstTensorView& images) {
    write_npy(array, images);
    return run({kTool, "eval", kModel, "--data", array, "--baseline", kModel, "--json"});
  };
  const Tensor half(DType::kF16, {2, 1, 28, 28}), tokens(DType::kI64, {2, 1, 28, 28}),
      small(DType::kI8, {2, 1, 28, 28});
  EXPECT_EQ(score(half.view()).exit, kDone);
  const Ended whole = score(tokens.view()), bytes = score(small.view());
  EXPECT_EQ(whole.exit, kUsage);
  EXPECT_NE(whole.err.find("expected float32, got int64\n  hint: save x.astype(numpy.float32)"),
            std::string::npos)
      << whole.err;
  EXPECT_EQ(bytes.exit, kUnsupported);
  EXPECT_NE(bytes.err.find("expected float32, float64, float16"), std::string::npos) << bytes.err;
  write_text(array, read_text(data()).substr(0, 5000));
  refused(folder, quantize(kModel, out, array), kInput, "d.npy");
}

TEST_F(BadInput, LabelFiles) {
  const Folder folder;
  const std::string labels = folder.file("l.txt"), images = folder.file("images");
  const auto with = [&](const std::string& text, const std::string& items,
                        const std::string& part) {
    write_text(labels, text);
    refused(folder, {kTool, "eval", reference(), "--data", items, "--labels", labels}, kInput,
            part);
  };
  with("1\n2\n", other(), "expected 6 labels, one an item, got 2");
  with("1\n2\n3\n4\n5\n6\n7\n", other(), "got 7");
  with("1\n2\n3\nfour\n5\n6\n", other(), "line 4");
  with("1\n2\n3\n-4\n5\n6\n", other(), "line 4");
  write_jpeg(images + "/a.jpg");
  write_jpeg(images + "/b.jpg");
  with("a.jpg 1\n", images, "\"b.jpg\" has none");
  with("a.jpg 1\nb.jpg 2\nc.jpg 3\n", images, "line 3: \"c.jpg\" is not in");
  with("a.jpg 1\na.jpg 2\n", images, "has a label already");
  refused(folder, {kTool, "eval", reference(), "--data", images, "--labels", folder.file("none")},
          kInput, "none");
}

// --class-names numbers the sub-folders of both.
TEST_F(BadInput, ClassNamesHoldForTheScoredImagesToo) {
  const Folder folder;
  write_jpeg(folder.file("images/bag/a.jpg"));
  write_jpeg(folder.file("images/hat/b.jpg"));
  write_text(folder.file("names.txt"), "shoe\nhat\n");
  refused(
      folder,
      quantize(kModel, folder.file("a.rq.safetensors"), data(),
               {"--class-names", folder.file("names.txt"), "--eval-data", folder.file("images")}),
      kUsage, "unknown class \"bag\"");
}

// ---- recipes ------------------------------------------------------------------------------------
TEST_F(BadInput, NamesThatDoNotExistNameTheNearest) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  const auto expect = [&](const std::vector<std::string>& options, const std::string& part) {
    refused(folder, quantize(kModel, out, data(), options), kUsage, part);
  };
  expect({"--method", "repqvit"}, "unknown method \"repqvit\"; nearest: repq_vit");
  expect({"--preset", "repquant_w4a5"}, "nearest: repquant_w4a");
  expect({"--set", "repquant.cilp=grid"}, "unknown option \"cilp\"; nearest: clip");
  expect({"--set", "repquant.clip=gird"}, "expected one of ");
  expect({"--set", "repq_vit.compat=true"}, "no pass uses \"repq_vit\"");
  expect({"--schema", "w4a4"}, "nearest: --scheme");
  expect({"--set", "data.samplse=3"}, "nearest: samples");
  write_text(folder.file("r.toml"), "[[layer]]\nmatch = \"*\"\nwieghts = 4\n");
  expect({"--recipe", folder.file("r.toml")},
         "r.toml:3:1: unknown key \"wieghts\"; nearest: weights");
}

TEST_F(BadInput, OneBitAndNineBits) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  for (const char* scheme : {"w1a4", "w9a8", "w4a1", "w8a9", "w0a0"}) {
    refused(folder, quantize(kModel, out, data(), {"--scheme", scheme}), kUsage, "2 to 8 bits");
  }
  for (const char* bits : {"1", "9"}) {
    write_text(
        folder.file("r.toml"),
        std::string("[[pass]]\nmethod = \"repquant\"\n[[layer]]\nmatch = \"*\"\nweights = ") +
            bits + "\n");
    refused(folder, quantize(kModel, out, data(), {"--recipe", folder.file("r.toml")}), kUsage,
            "expected an integer of 2 to 8");
  }
}

// ---- outputs ------------------------------------------------------------------------------------
// The disk is full at the checkpoint, inside the artifact, and after it inside the run record.
TEST_F(BadInput, FullDiskAtAnyFile) {
  const auto artifact = fs::file_size(reference());
  ASSERT_GT(fs::file_size(reference() + ".run.json"), 0u);
  for (const bool replace : {false, true}) {
    for (const uint64_t limit : {uint64_t{1000}, uint64_t{60'000}, artifact - 1000}) {
      const Folder folder;
      const std::string out = folder.file("a.rq.safetensors");
      if (replace) write_text(out, "an older artifact");
      refused(folder, command(out, {"--force"}), kCapacity, "a.rq.safetensors", limit);
    }
  }
  const Folder folder;  // the record is the larger file when it is not compact
  const auto record = fs::file_size(reference() + ".run.json");
  if (record > artifact) {
    refused(folder, command(folder.file("a.rq.safetensors")), kCapacity, ".run.json",
            record - 1000);
  }
  refused(folder, {kTool, "report", reference(), "--format", "html", "-o", folder.file("r.html")},
          kCapacity, "r.html", 1000);
  refused(
      folder,
      {kTool, "run", reference(), "--input", other() + "[0:1]", "--output", folder.file("y.npy")},
      kCapacity, "y.npy", 100);
}

TEST_F(BadInput, PlacesThatCannotBeWritten) {
  const Folder folder;
  write_text(folder.file("file"), "");
  refused(folder, command(folder.file("file/a.rq.safetensors")), kInput, "file/a.rq.safetensors");
  refused(folder, command(folder.file("none/a.rq.safetensors")), kInput, "none/a.rq.safetensors");
  refused(folder, command("/sys/a.rq.safetensors"), kUsage, "/sys/a.rq.safetensors");
  refused(folder, command(folder.path(), {"--force"}), kUsage,
          "expected a file name, got a folder");
  refused(folder, command(folder.file("a"), {"--work-dir", folder.file("file")}), kUsage, "file");
  for (const auto& [verb, option] : {std::pair{"report", "-o"}, {"run", "--output"}}) {
    std::vector<std::string> words{kTool, verb, reference(), option, folder.file("file/x")};
    if (verb == std::string("run")) words.insert(words.end(), {"--input", other() + "[0:1]"});
    refused(folder, words, kInput, "file/x");
  }
}

TEST_F(BadInput, DevicesStayDevices) {
  const Folder folder;
  const std::string device = folder.file("device");
  fs::create_symlink("/dev/null", device);
  refused(folder, command(device, {"--force"}), kUsage, "expected a file name, got a device");
  refused(folder, {kTool, "report", reference(), "-o", device}, kUsage, "expected a regular file");
  EXPECT_TRUE(fs::is_character_file(device));
}

// Passing because nothing was compared would be worse than failing.
TEST_F(BadInput, AGateNeedsALayerToCompare) {
  const Folder folder;
  onnx::ModelProto model = demo_model();
  onnx::GraphProto& graph = *model.mutable_graph();
  graph.mutable_output(0)->set_name(graph.node(graph.node_size() - 1).input(0));
  graph.mutable_output(0)->clear_type();
  graph.mutable_node()->RemoveLast();
  for (onnx::TensorProto& tensor : *graph.mutable_initializer()) {
    for (onnx::NodeProto& node : *graph.mutable_node()) {  // layers are named by their weights
      for (std::string& input : *node.mutable_input()) {
        if (input == tensor.name()) input = "other." + input;
      }
      node.set_name("other." + node.op_type());
    }
    tensor.set_name("other." + tensor.name());
  }
  write_text(folder.file("m.onnx"), model.SerializeAsString());
  refused(folder,
          {kTool, "compare", kModel, folder.file("m.onnx"), "--data", other(), "--min-sqnr", "90"},
          kUsage, "no layer could be compared");
  EXPECT_EQ(run({kTool, "compare", kModel, reference(), "--data", other(), "--samples", "1",
                 "--min-sqnr", "nan"})
                .exit,
            kQuality);
}

TEST_F(BadInput, TheModelIsNotReplaced) {
  const Folder folder;
  fs::copy_file(kModel, folder.file("m.onnx"));
  fs::create_symlink("m.onnx", folder.file("link.onnx"));
  for (const char* out : {"m.onnx", "link.onnx"}) {
    refused(folder,
            quantize(folder.file("m.onnx"), folder.file(out), data(),
                     {"--force", "--method", "round_to_nearest"}),
            kUsage, "expected another file than the model");
  }
}

TEST_F(BadInput, AWorkFolderThatHoldsOtherFilesKeepsThem) {
  const Folder folder;
  fs::create_directory(folder.file("w"));
  write_text(folder.file("w/passwords.txt"), "mine");
  write_text(folder.file("w/pass1_unit.safetensors"), "mine");
  write_text(folder.file("w/notes.tmp"), "mine");
  for (const char* resume : {"auto", "never"}) {
    const Ended ended = run(quantize(kModel, folder.file("a.rq.safetensors"), data(),
                                     {"--force", "--method", "round_to_nearest", "--work-dir",
                                      folder.file("w"), "--resume", resume}));
    ASSERT_EQ(ended.exit, 0) << ended.err;
    EXPECT_EQ(contents(folder).size(), 7u) << resume;  // three files, three outputs, a folder
    for (const char* name : {"w/passwords.txt", "w/pass1_unit.safetensors", "w/notes.tmp"})
      EXPECT_EQ(read_text(folder.file(name)), "mine") << resume;
  }
}

// ---- interruptions ------------------------------------------------------------------------------
TEST_F(BadInput, SignalsAtAnyMomentLeaveNothingHalfWritten) {
  std::mt19937 random(5);
  const std::string wanted = read_text(reference());
  int stopped = 0;
  for (int i = 0; i < 6; ++i) {
    const Folder folder;
    const std::string out = folder.file("a.rq.safetensors");
    const int number = i % 2 == 0 ? SIGINT : SIGTERM;
    Process process(command(out));
    process.wait_for("block ");  // handlers are installed long before
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 800));
    process.send(number);
    const Ended ended = process.wait();
    if (ended.exit == kDone) {
      EXPECT_EQ(read_text(out), wanted);
      continue;
    }
    ++stopped;
    EXPECT_EQ(ended.exit, number == SIGINT ? kInterrupted : kTerminated) << ended.err;
    expect_message(ended, "run the same command to go on: repquant quantize");
    EXPECT_EQ(folder.names(), std::vector<std::string>{"a.rq.safetensors.work"});
    const Ended resumed = run(command(out, {"--resume", "require"}));
    EXPECT_EQ(resumed.exit, 0) << resumed.err;
    EXPECT_EQ(read_text(out), wanted);
  }
  EXPECT_GE(stopped, 2);
}

// Equal weights, another graph: what was saved is of no use.
TEST_F(BadInput, SavedStateIsOfOneGraph) {
  const Folder folder;
  const std::string path = folder.file("m.onnx"), out = folder.file("a.rq.safetensors");
  fs::copy_file(kModel, path);
  const std::vector<std::string> words = quantize(path, out, data());
  Process first(words);
  ASSERT_TRUE(first.wait_for("block 3/"));
  first.send(SIGKILL);
  first.wait();
  ASSERT_FALSE(fs::exists(out));
  onnx::ModelProto model = demo_model();
  for (onnx::NodeProto& node : *model.mutable_graph()->mutable_node()) {
    for (onnx::AttributeProto& attribute : *node.mutable_attribute()) {
      if (attribute.name() == "epsilon") attribute.set_f(0.5f);
    }
  }
  write_text(path, model.SerializeAsString());
  refused(folder, words, kUsage, "saved state is of another run: graph changed");
}

TEST_F(BadInput, TwoRunsWithOneWorkFolder) {
  const Folder folder;
  const std::string work = folder.file("w");
  Process first(command(folder.file("a.rq.safetensors"), {"--work-dir", work}));
  ASSERT_TRUE(first.wait_for("block 1/"));
  first.send(SIGSTOP);
  const Ended second = run(command(folder.file("b.rq.safetensors"), {"--work-dir", work}));
  first.send(SIGCONT);
  EXPECT_EQ(second.exit, kUsage);
  expect_message(second, "another run writes this output");
  EXPECT_FALSE(fs::exists(folder.file("b.rq.safetensors")));
  EXPECT_EQ(first.wait().exit, 0);
  EXPECT_EQ(read_text(folder.file("a.rq.safetensors")), read_text(reference()));
}

}  // namespace
}  // namespace repquant::cli
