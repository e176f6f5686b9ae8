// Equal logits for every instruction set of this machine, 1, 2 and 3 threads, batches of 1, 3 and
// 8: DeiT-Tiny, the demo vision transformer and ResNet-20, with their shapes and random operands.
// Here with fewer blocks and smaller images; REPQUANT_FULL_MATRIX=1 (ctest label `slow`) runs them
// whole.
#include <gtest/gtest.h>

#include <cstdlib>

#include "repquant/evaluate/bit_matrix.h"
#include "repquant/evaluate/verify.h"
#include "repquant/graph/testing_vit.h"
#include "repquant/lower/lower.h"
#include "repquant/runtime/kernels/isa.h"
#include "repquant/runtime/testing.h"

namespace repquant {
namespace {

bool whole() {
  const char* text = std::getenv("REPQUANT_FULL_MATRIX");
  return text != nullptr && std::string(text) == "1";
}

Tensor random_items(const Plan& plan, int64_t items) {
  Shape shape = plan.buffers[static_cast<size_t>(plan.inputs[0])].item_shape;
  shape.insert(shape.begin(), items);
  return Tensor::of<float>(shape, testing::Random(5).reals(element_count(shape), -2, 2));
}

void expect_equal_bits(const Plan& plan) {
  const auto scalar = Program::from_plan(plan, {.isa = "scalar"});
  const auto found = first_difference(plan, scalar, {random_items(plan, 1)}, nullptr);
  EXPECT_FALSE(found.has_value()) << found->step;
  const BitMatrix matrix = compare_bits(plan, {random_items(plan, 8)});
  EXPECT_EQ(matrix.combinations, static_cast<int64_t>(runtime::available_isas().size()) * 9);
  ASSERT_FALSE(matrix.difference.has_value())
      << matrix.difference->isa << ", " << matrix.difference->threads << " threads, batch "
      << matrix.difference->batch << ", item " << matrix.difference->item;
  EXPECT_NE(matrix.digest,
            compare_bits(plan, {random_items(plan, 1)}, {{"scalar"}, {1}, {8}}).digest);
}

Plan vit(const testing::TinyVit& options) {
  const testing::Model model = testing::tiny_vit(options);
  return lower(model.graph, model.plan);
}

testing::TinyVit deit_tiny(int bits) {
  testing::TinyVit options;
  options.weight_bits = options.activation_bits = bits;
  options.softmax = bits == 8 ? testing::Softmax::kRow : testing::Softmax::kTable;
  options.embed = 192, options.heads = 3, options.mlp = 768;
  options.patch = 16, options.image = whole() ? 224 : 64;
  options.blocks = whole() ? 12 : 1, options.classes = 1000;
  return options;
}

TEST(Bits, DeitTiny) {
  for (const int bits : {4, 8}) expect_equal_bits(vit(deit_tiny(bits)));
}

TEST(Bits, DemoVisionTransformer) {
  testing::TinyVit options;
  options.image = 28, options.patch = 4, options.channels = 1;
  options.embed = 64, options.heads = 4, options.mlp = 256;
  options.blocks = whole() ? 6 : 2;
  expect_equal_bits(vit(options));
}

// One convolution 3 x 3, or 1 x 1 without padding, of codes [H, W, C] by patches and a product.
int convolution(testing::PlanBuilder& b, int codes, int64_t channels, int64_t kernel,
                int64_t stride, int residual, int out_bits) {
  const Shape& from = b.shape(codes);
  const int64_t pad = kernel / 2;
  Shape to{(from[0] + 2 * pad - kernel) / stride + 1, (from[1] + 2 * pad - kernel) / stride + 1,
           kernel * kernel * from[2]};
  const int windows = b.step("patches", {codes}, DType::kU8, to, 8);
  b.windows({kernel, kernel}, {stride, stride}, {pad, pad, pad, pad}, {1, 1});
  b.last().ints["fill"] = b.zero_of(codes);
  b.zeros[windows] = b.zero_of(codes);
  testing::LinearForm form{channels, 8, out_bits};
  form.residual = residual;
  return b.linear(windows, form);
}

// A stem, three stages of `blocks` blocks of two convolutions with shortcuts, a mean, a head.
Plan resnet(int64_t image, int blocks) {
  testing::PlanBuilder b(20);
  int codes = b.quantize(b.input("image", {image, image, 3}), 8);
  int x = b.activation(convolution(b, codes, 16, 3, 1, -1, 0), "relu");
  for (int64_t stage = 0; stage < 3; ++stage) {
    const int64_t channels = int64_t{16} << stage;
    for (int block = 0; block < blocks; ++block) {
      const int64_t stride = stage > 0 && block == 0 ? 2 : 1;
      codes = b.quantize(x, 8);
      const int shortcut = stride == 1 ? x : convolution(b, codes, channels, 1, 2, -1, 0);
      const int middle = convolution(b, codes, channels, 3, stride, -1, 8);
      x = b.activation(convolution(b, middle, channels, 3, 1, shortcut, 0), "relu");
    }
  }
  const int mean = b.step("mean_rows", {x}, DType::kF32, {64}, 32);
  return b.finish(b.linear(b.quantize(mean, 8), {10, 8, 0}));
}

TEST(Bits, ResNet20) { expect_equal_bits(whole() ? resnet(32, 3) : resnet(16, 1)); }

}  // namespace
}  // namespace repquant
