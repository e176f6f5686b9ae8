#include "repquant/data/dataset.h"

#include <sys/stat.h>

#include <numeric>

#include <fmt/format.h>
#include <zlib.h>

#include "repquant/core/artifact.h"
#include "repquant/data/npy.h"
#include "repquant/data/testing.h"
#include "repquant/data/testing_fixtures.h"

namespace repquant {
namespace {

using namespace testing;

Preprocess tiny() {
  Preprocess p = preset("cifar10");
  p.crop = 2;
  return p;
}

DatasetOptions tiny_options() {
  DatasetOptions options;
  options.preprocess = tiny();
  return options;
}

void write_image(const fs::path& path, int seed) {
  Image image = crop(synthetic_image(40, 40), seed, 2 * seed, 4, 4);
  write_bytes(path, encode_png(image));
}

TEST(ImageFolder, SortedByNameOtherFilesIgnored) {
  const TempDir dir;
  for (const char* name : {"b.png", "a.PNG", "10.png", "9.png"})
    write_image(dir / name, name[0] % 8);
  write_bytes(dir / "c.jpeg", from_hex(kColourJpeg));
  write_text(dir / "notes.md", "text");
  write_text(dir / "._b.png", "not an image, and hidden");
  write_image(dir / ".cache/x.png", 1);
  const auto data = open_dataset(dir.path(), tiny_options());
  std::vector<std::string> names;
  for (int64_t i = 0; i < data->size(); ++i) names.push_back(data->name(i));
  EXPECT_EQ(names, (std::vector<std::string>{"10.png", "9.png", "a.PNG", "b.png", "c.jpeg"}));
  EXPECT_FALSE(data->has_labels());
  const Sample sample = data->load(4);
  EXPECT_EQ(sample.name, "c.jpeg");
  EXPECT_EQ(sample.label, -1);
  EXPECT_EQ(sample.input.shape(), (Shape{3, 2, 2}));
}

TEST(ImageFolder, LabelsFromFiles) {
  const TempDir dir;
  for (const char* name : {"a.png", "b c.png", "d.png"})
    write_image(dir / "set" / fs::path(name).string(), 1);
  write_text(dir / "labels", "d.png 7\r\na.png\t3\n\nb c.png 0");
  DatasetOptions options = tiny_options();
  options.labels = dir / "labels";
  const auto data = open_dataset(dir / "set", options);
  EXPECT_EQ((std::vector<int64_t>{data->label(0), data->label(1), data->label(2)}),
            (std::vector<int64_t>{3, 0, 7}));
  write_text(dir / "set/labels.txt", "a.png 1\nb c.png 1\nd.png 1\n");
  EXPECT_EQ(open_dataset(dir / "set", tiny_options())->label(0), 1);  // found by itself
  EXPECT_EQ(open_dataset(dir / "set", options)->label(0), 3);         // the option wins
  write_text(dir / "labels",
             "\xEF\xBB\xBF"
             "a.png 5\nb c.png 0\nd.png 1\n");
  EXPECT_EQ(open_dataset(dir / "set", options)->label(0), 5);  // behind a byte order mark
}

TEST(ImageFolder, WrongLabelFiles) {
  const TempDir dir;
  for (const char* name : {"a.png", "b.png"}) write_image(dir / "set" / fs::path(name).string(), 1);
  DatasetOptions options = tiny_options();
  options.labels = dir / "labels";
  const auto expect = [&](const char* text, const std::string& part) {
    write_text(dir / "labels", text);
    expect_error(ErrorCode::kCorruptFile, part, [&] { open_dataset(dir / "set", options); });
  };
  expect("a.png 1\n", "expected a label for each of 2 images, got 1; \"b.png\" has none");
  expect("a.png 1\nb.png 1\nc.png 1\n", "line 3: \"c.png\" is not in");
  expect("a.png 1\na.png 2\n", "line 2: \"a.png\" has a label already");
  expect("a.png -1\nb.png 1\n", "line 1");
  expect("a.png 1\nb.png x\n", "line 2");
  expect("a.png 1\nb.png 99999999999999999999\n", "line 2");
  expect("1\n2\n", "line 1: expected \"file label\"");
  expect("", "got 0");
  options.labels = dir / "nowhere";
  expect_error(ErrorCode::kNotFound, "nowhere", [&] { open_dataset(dir / "set", options); });
}

TEST(ImageFolder, LabelsFromSubFolders) {
  const TempDir dir;
  write_image(dir / "set/dog/1.png", 1);
  write_image(dir / "set/cat/deep/2.png", 2);
  fs::create_directories(dir / "set/bee");  // no image, keeps its number
  const auto data = open_dataset(dir / "set", tiny_options());
  EXPECT_EQ(data->class_names(), (std::vector<std::string>{"bee", "cat", "dog"}));
  EXPECT_EQ(data->name(0), "cat/deep/2.png");
  EXPECT_EQ(data->label(0), 1);
  EXPECT_EQ(data->label(1), 2);
  DatasetOptions options = tiny_options();
  options.class_names = dir / "names";
  write_text(dir / "names", "dog\nbee\ncat\n");
  EXPECT_EQ(open_dataset(dir / "set", options)->label(0), 2);
  write_text(dir / "names", "dog\nbee\ncatt\n");
  expect_error(ErrorCode::kInvalidArgument, "catt", [&] { open_dataset(dir / "set", options); });
  write_image(dir / "set/3.png", 3);
  expect_error(ErrorCode::kInvalidArgument, "either in the folder or in sub-folders",
               [&] { open_dataset(dir / "set", tiny_options()); });
}

TEST(ImageFolder, BadInput) {
  const TempDir dir;
  expect_error(ErrorCode::kNotFound, "nothing there", [&] { open_dataset(dir / "none", {}); });
  expect_error(ErrorCode::kInvalidArgument, "an empty folder",
               [&] { open_dataset(dir.path(), {}); });
  write_text(dir / "a.txt", "x");
  expect_error(ErrorCode::kInvalidArgument, "none among 1 files",
               [&] { open_dataset(dir.path(), {}); });
  expect_error(ErrorCode::kUnsupported, "a.txt", [&] { open_dataset(dir / "a.txt", {}); });
  write_image(dir / "good.png", 1);
  write_text(dir / "z.jpg", "text");
  expect_error(ErrorCode::kCorruptFile, "z.jpg\": expected a JPEG or PNG image, got something else",
               [&] { open_dataset(dir.path(), tiny_options()); });
  fs::create_symlink(dir / "gone", dir / "link.png");
  write_text(dir / "empty.png", "");
  expect_error(ErrorCode::kCorruptFile,
               "empty.png\": expected a JPEG or PNG image, got an empty file; so do 2 other files",
               [&] { open_dataset(dir.path(), tiny_options()); });
}

TEST(ImageFolder, LinkedFoldersAreFollowed) {
  const TempDir dir;
  write_image(dir / "all/shoe/a.png", 1);
  write_image(dir / "all/hat/b.png", 2);
  fs::create_directories(dir / "subset");
  for (const char* name : {"hat", "shoe"})
    fs::create_directory_symlink(dir / "all" / name, dir / "subset" / name);
  const auto data = open_dataset(dir / "subset", tiny_options());
  ASSERT_EQ(data->size(), 2);
  EXPECT_EQ(data->name(1), "shoe/a.png");
  EXPECT_EQ(data->label(1), 1);
  EXPECT_EQ(data->class_names(), (std::vector<std::string>{"hat", "shoe"}));
  fs::create_directory_symlink(dir / "subset", dir / "all/hat/loop");
  expect_error(ErrorCode::kInvalidArgument, "sub-folders at most 16 deep",
               [&] { open_dataset(dir / "subset", tiny_options()); });
}

// Reading one would wait for ever.
TEST(ImageFolder, PipesAreNoImages) {
  const TempDir dir;
  write_image(dir / "a.png", 1);
  ASSERT_EQ(::mkfifo((dir / "b.jpg").c_str(), 0600), 0);
  expect_error(ErrorCode::kCorruptFile, "b.jpg\": expected a JPEG or PNG image, got a pipe",
               [&] { open_dataset(dir.path(), tiny_options()); });
}

TEST(ImageFolder, TruncatedImageFailsWhenLoaded) {
  const TempDir dir;
  const std::vector<std::byte> bytes = from_hex(kColourJpeg);
  write_bytes(dir / "cut.jpg", std::span(bytes).first(bytes.size() - 20));
  const auto data = open_dataset(dir.path(), tiny_options());
  expect_error(ErrorCode::kCorruptFile, "cut.jpg\": truncated JPEG image", [&] { data->load(0); });
}

TEST(ImageFolder, PresetIsCheckedFirst) {
  const TempDir dir;
  write_image(dir / "a.png", 1);
  DatasetOptions options = tiny_options();
  options.preprocess.std[1] = 0.0f;
  expect_error(ErrorCode::kInvalidArgument, "std", [&] { open_dataset(dir.path(), options); });
}

TEST(Dataset, RangesOfTheSortedItems) {
  const TempDir dir;
  for (int i = 0; i < 6; ++i) write_image(dir / fmt::format("set/{}.png", i), i);
  DatasetOptions options = tiny_options();
  options.begin = 2;
  options.end = 5;
  const auto part = open_dataset(dir / "set", options);
  const auto whole = open_dataset(dir / "set", tiny_options());
  ASSERT_EQ(part->size(), 3);
  EXPECT_EQ(part->name(0), "2.png");
  EXPECT_EQ(part->digest(2), whole->digest(4));
  EXPECT_EQ(part->load(1).name, "3.png");
  const auto spelled = open_dataset(dir.path() / "set[4:]", tiny_options());
  ASSERT_EQ(spelled->size(), 2);
  EXPECT_EQ(spelled->name(0), "4.png");
  EXPECT_EQ(open_dataset(dir.path() / "set[:1]", tiny_options())->size(), 1);
  for (const char* bad : {"set[4:4]", "set[0:7]", "set[6:]", "set[5:2]"}) {
    expect_error(ErrorCode::kInvalidArgument, "range",
                 [&] { open_dataset(dir.path() / bad, tiny_options()); });
  }
  expect_error(ErrorCode::kInvalidArgument, "two",
               [&] { open_dataset(dir.path() / "set[0:2]", options); });
  expect_error(ErrorCode::kNotFound, "set[a:]",
               [&] { open_dataset(dir.path() / "set[a:]", tiny_options()); });
  fs::rename(dir / "set", dir / "set[0:3]");  // a folder of that name comes first
  EXPECT_EQ(open_dataset(dir.path() / "set[0:3]", tiny_options())->size(), 6);
}

TEST(Dataset, OneImage) {
  const TempDir dir;
  write_image(dir / "a.png", 1);
  const auto data = open_dataset(dir / "a.png", tiny_options());
  ASSERT_EQ(data->size(), 1);
  EXPECT_EQ(data->load(0).name, "a.png");
}

TEST(Dataset, BatchesNeedEqualShapes) {
  const TempDir dir;
  write_image(dir / "a.png", 1);
  write_bytes(dir / "b.png", encode_png(synthetic_image(5, 4)));
  DatasetOptions options = tiny_options();
  const std::vector<int64_t> both{1, 0};
  const auto data = open_dataset(dir.path(), options);
  const Tensor batch = load_batch(*data, both);
  ASSERT_EQ(batch.shape(), (Shape{2, 3, 2, 2}));
  const Tensor second = data->load(0).input;
  EXPECT_TRUE(std::equal(second.as<float>().begin(), second.as<float>().end(),
                         batch.as<float>().begin() + 12));
  options.preprocess.crop = 0;
  const auto uneven = open_dataset(dir.path(), options);
  expect_error(ErrorCode::kCorruptFile, "expected shape [3, 4, 5]",
               [&] { load_batch(*uneven, both); });
}

std::vector<std::byte> idx(const std::vector<uint32_t>& shape, size_t count) {
  std::vector<std::byte> bytes{std::byte{0}, std::byte{0}, std::byte{8},
                               static_cast<std::byte>(shape.size())};
  for (const uint32_t n : shape) {
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<std::byte>(n >> shift));
  }
  for (size_t i = 0; i < count; ++i) bytes.push_back(static_cast<std::byte>(i * 7));
  return bytes;
}

std::vector<std::byte> gzip(const std::vector<std::byte>& bytes) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::vector<std::byte> out(bytes.size() + 200);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

DatasetOptions grey_options() {
  DatasetOptions options;
  options.preprocess = preset("mnist");
  options.preprocess.crop = 0;
  return options;
}

TEST(Idx, PlainAndPacked) {
  const TempDir dir;
  write_bytes(dir / "t10k-images-idx3-ubyte", idx({3, 2, 5}, 30));
  write_bytes(dir / "p/t10k-images-idx3-ubyte.gz", gzip(idx({3, 2, 5}, 30)));
  write_bytes(dir / "t10k-labels-idx1-ubyte.gz", gzip(idx({3}, 3)));
  const auto plain = open_dataset(dir / "t10k-images-idx3-ubyte", grey_options());
  const auto packed = open_dataset(dir / "p/t10k-images-idx3-ubyte.gz", grey_options());
  ASSERT_EQ(plain->size(), 3);
  EXPECT_EQ(plain->label(2), 14);
  EXPECT_EQ(packed->label(2), -1);
  for (int64_t i = 0; i < 3; ++i) {
    const Tensor input = plain->load(i).input;
    ASSERT_EQ(input.shape(), (Shape{1, 2, 5}));
    for (size_t k = 0; k < 10; ++k) {
      const auto byte = static_cast<uint8_t>((static_cast<size_t>(i) * 10 + k) * 7);
      EXPECT_EQ(input.as<float>()[k], static_cast<float>(byte) / 255.0f);
    }
    EXPECT_EQ(packed->digest(i), plain->digest(i));
  }
  expect_error(ErrorCode::kInvalidArgument, "a folder of IDX files",
               [&] { open_dataset(dir.path(), grey_options()); });
}

TEST(Idx, LabelsMustFit) {
  const TempDir dir;
  write_bytes(dir / "t10k-images-idx3-ubyte", idx({3, 2, 5}, 30));
  write_bytes(dir / "t10k-labels-idx1-ubyte", idx({2}, 2));
  expect_error(ErrorCode::kCorruptFile, "expected 3 labels",
               [&] { open_dataset(dir / "t10k-images-idx3-ubyte", grey_options()); });
  DatasetOptions options = grey_options();
  options.labels = dir / "text";
  write_text(dir / "text", "5\n6\n7\n");
  EXPECT_EQ(open_dataset(dir / "t10k-images-idx3-ubyte", options)->label(1), 6);
  write_text(dir / "text", "5\n6\n");
  expect_error(ErrorCode::kCorruptFile, "expected 3 labels",
               [&] { open_dataset(dir / "t10k-images-idx3-ubyte", options); });
}

TEST(Idx, DamageIsAnError) {
  const TempDir dir;
  const fs::path path = dir / "x-images-idx3-ubyte";
  const auto bad = [&](std::span<const std::byte> bytes) {
    write_bytes(path, bytes);
    EXPECT_THROW(open_dataset(path, grey_options()), Error) << bytes.size();
  };
  const std::vector<std::byte> plain = idx({3, 2, 5}, 30), packed = gzip(plain);
  for (size_t n = 0; n < plain.size(); ++n) bad(std::span(plain).first(n));
  for (size_t n = 0; n < packed.size(); ++n) bad(std::span(packed).first(n));
  bad(idx({3, 2, 5}, 31));
  bad(gzip(idx({3, 2, 5}, 31)));
  bad(idx({0, 2, 5}, 0));
  bad(idx({0xffffffff, 0xffffffff, 0xffffffff}, 8));
  bad(gzip(idx({0x7fffffff, 0x7fffffff, 2}, 8)));
  bad(gzip(idx({0x7fffffff, 1, 1}, 8)));  // 2 GiB promised, a few bytes there
  bad(idx({30}, 30));
  for (size_t i = 10; i < packed.size(); ++i) {  // the checksum sees every flipped bit of the data
    std::vector<std::byte> damaged = packed;
    damaged[i] ^= std::byte{4};
    bad(damaged);
  }
}

void save(const fs::path& path, const Tensor& tensor) { write_npy(path, tensor.view()); }

Tensor counting(Shape shape) {
  Tensor tensor(DType::kU8, std::move(shape));
  std::iota(tensor.as<uint8_t>().begin(), tensor.as<uint8_t>().end(), uint8_t{0});
  return tensor;
}

TEST(Arrays, FloatsAreUsedAsTheyAre) {
  const TempDir dir;
  const Tensor tensor = Tensor::of<float>({2, 3}, std::vector<float>{1, -2, 3.5f, 0, 1e-30f, 7});
  save(dir / "x.npy", tensor);
  const auto data = open_dataset(dir / "x.npy");
  ASSERT_EQ(data->size(), 2);
  EXPECT_EQ(data->load(0).input.shape(), (Shape{3}));
  EXPECT_EQ(data->load(1).input.as<float>()[1], 1e-30f);
  EXPECT_EQ(data->name(1), "x.npy[1]");
  EXPECT_NE(data->digest(0), data->digest(1));
  const Tensor wide = Tensor::of<double>({1, 2}, std::vector<double>{0.1, 2});
  save(dir / "wide.npy", wide);
  EXPECT_EQ(open_dataset(dir / "wide.npy")->load(0).input.as<float>()[0], 0.1f);
  Tensor half(DType::kF16, {1, 3});
  const uint16_t bits[] = {0x3c00, 0xc100, 0x0001};
  std::memcpy(half.data(), bits, sizeof bits);
  save(dir / "half.npy", half);
  const Tensor widened = open_dataset(dir / "half.npy")->load(0).input;
  EXPECT_EQ(widened.as<float>()[0], 1.0f);
  EXPECT_EQ(widened.as<float>()[1], -2.5f);
  EXPECT_EQ(widened.as<float>()[2], 0x1p-24f);
  const Tensor tokens = Tensor::of<int64_t>({1, 2}, std::vector<int64_t>{1, 1ll << 40});
  save(dir / "tokens.npy", tokens);
  EXPECT_EQ(open_dataset(dir / "tokens.npy")->load(0).input.as<int64_t>()[1], 1ll << 40);
}

TEST(Arrays, OtherTypesAreRefusedByName) {
  const TempDir dir;
  save(dir / "x.npy", Tensor::of<int16_t>({2, 1}, std::vector<int16_t>{1, 2}));
  expect_error(ErrorCode::kUnsupported, "expected float32, float64, float16, uint8 pixels",
               [&] { open_dataset(dir / "x.npy"); });
  expect_error(ErrorCode::kUnsupported, "got int16", [&] { open_dataset(dir / "x.npy"); });
}

TEST(Arrays, NotFiniteIsAnError) {
  const TempDir dir;
  save(dir / "x.npy", Tensor::of<float>({2, 1}, std::vector<float>{1, NAN}));
  const auto data = open_dataset(dir / "x.npy");
  EXPECT_NO_THROW(data->load(0));
  expect_error(ErrorCode::kCorruptFile, "item 1", [&] { data->load(1); });
}

TEST(Arrays, PixelsInEveryLayoutGiveTheSameInput) {
  const TempDir dir;
  const Image image = synthetic_image(5, 4);
  Tensor last = Tensor::of<uint8_t>({1, 4, 5, 3}, image.pixels), first(DType::kU8, {1, 3, 4, 5});
  for (size_t i = 0; i < 20; ++i) {
    for (size_t c = 0; c < 3; ++c) first.as<uint8_t>()[c * 20 + i] = image.pixels[3 * i + c];
  }
  save(dir / "last.npy", last);
  save(dir / "first.npy", first);
  const Tensor a = open_dataset(dir / "last.npy", tiny_options())->load(0).input;
  const Tensor b = open_dataset(dir / "first.npy", tiny_options())->load(0).input;
  const Tensor expected = apply_preprocess(image, tiny(), "x");
  EXPECT_TRUE(std::equal(a.as<float>().begin(), a.as<float>().end(), expected.as<float>().begin()));
  EXPECT_TRUE(std::equal(b.as<float>().begin(), b.as<float>().end(), expected.as<float>().begin()));
  save(dir / "grey.npy", counting({2, 4, 5}));
  EXPECT_EQ(open_dataset(dir / "grey.npy", grey_options())->load(1).input.shape(),
            (Shape{1, 4, 5}));
  for (const Shape& shape :
       {Shape{2, 4}, Shape{2, 2, 4, 5}, Shape{2, 3, 0, 5}, Shape{0, 3, 4, 5}, Shape{}}) {
    save(dir / "bad.npy", counting(shape));
    expect_error(ErrorCode::kCorruptFile, "expected",
                 [&] { open_dataset(dir / "bad.npy", tiny_options()); });
  }
}

TEST(Arrays, ArchivesWithLabels) {
  const TempDir dir;
  write_bytes(dir / "x.npz",
              from_hex(kNumpyArchive));  // images u8 [2, 1, 3, 4] = 0 .. 23, labels 3 1
  const auto data = open_dataset(dir / "x.npz", grey_options());
  ASSERT_EQ(data->size(), 2);
  EXPECT_EQ(data->label(0), 3);
  EXPECT_EQ(data->label(1), 1);
  EXPECT_EQ(data->load(1).input.as<float>()[11], 23.0f / 255.0f);
  const Tensor input = Tensor::of<float>({2, 1}, std::vector<float>{4, 5});
  const Tensor labels = Tensor::of<int32_t>({2}, std::vector<int32_t>{8, 9});
  const Tensor other = Tensor::of<float>({3, 1}, std::vector<float>{1, 2, 3});
  write_safetensors(dir / "x.safetensors", {},
                    {{"input", &input}, {"labels", &labels}, {"other", &other}}, false);
  EXPECT_EQ(open_dataset(dir / "x.safetensors")->label(1), 9);
  DatasetOptions options;
  options.array = "othr";
  expect_error(ErrorCode::kInvalidArgument, "\"other\"",
               [&] { open_dataset(dir / "x.safetensors", options); });
  options.array = "other";
  expect_error(ErrorCode::kCorruptFile, "\"labels\" of shape [3]",
               [&] { open_dataset(dir / "x.safetensors", options); });
  write_safetensors(dir / "y.safetensors", {}, {{"a", &input}, {"b", &other}}, false);
  expect_error(ErrorCode::kCorruptFile, "\"a\", \"b\"",
               [&] { open_dataset(dir / "y.safetensors"); });
  write_safetensors(dir / "z.safetensors", {}, {{"anything", &input}}, false);
  EXPECT_EQ(open_dataset(dir / "z.safetensors")->load(1).input.as<float>()[0], 5.0f);
}

TEST(Assets, ValidationImagesWithLabels) {
  REPQUANT_NEED_ASSETS();
  DatasetOptions options;
  options.labels = assets() / "vision/imagenet/val_labels.txt";
  const auto data = open_dataset(assets() / "vision/imagenet/val", options);
  ASSERT_EQ(data->size(), 650);
  EXPECT_EQ(data->name(0), "ILSVRC2012_val_00000347.JPEG");
  EXPECT_EQ(data->label(0), 472);
  EXPECT_EQ(data->load(649).input.shape(), (Shape{3, 224, 224}));
  options.labels = assets() / "vision/imagenet/train_labels.txt";
  options.begin = 0;
  options.end = 200;
  const auto pool = open_dataset(assets() / "vision/imagenet/train", options);
  EXPECT_EQ(pool->size(), 200);
  EXPECT_EQ(pool->label(0), 1);
}

TEST(Assets, Mnist) {
  REPQUANT_NEED_ASSETS();
  DatasetOptions options;
  options.preprocess = preset("mnist");
  const auto data = open_dataset(assets() / "vision/mnist/t10k-images-idx3-ubyte.gz", options);
  ASSERT_EQ(data->size(), 10000);
  EXPECT_EQ(data->label(0), 7);
  const Tensor input = data->load(9999).input;
  EXPECT_EQ(input.shape(), (Shape{1, 28, 28}));
}

}  // namespace
}  // namespace repquant
