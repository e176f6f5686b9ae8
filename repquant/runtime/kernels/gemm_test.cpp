// Rows of gemm_i8 and gemm_i4 against loops that follow the contract: every byte value, odd sizes,
// extremes, windows of images, weights of every width.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <utility>

#include "repquant/runtime/kernels/testing_gemm.h"

namespace repquant::runtime {
namespace {

using namespace testing;

template <class Rows> int compare(Rows rows, int weight_bits, int count) {
  std::mt19937 random(static_cast<uint32_t>(5 + weight_bits));
  int seen = 0;
  for (const Case& form : cases(random, weight_bits, count)) {
    const Gemm g = make(random, form);
    const Answer want = by_the_contract(g);
    for (const auto* row : rows) {
      if (!isa_available(row->isa)) continue;
      ++seen;
      EXPECT_TRUE(want == answer(*row, g))
          << row->name << ": " << form.rows << " x " << g.shape.k << " x " << form.n << ", "
          << weight_bits << " bits, lines " << g.shape.lines << ", extremes " << form.extremes;
      if (::testing::Test::HasFailure()) return seen;
    }
  }
  return seen;
}

TEST(Gemm, EightBits) {
  for (const int bits : {8, 7, 5}) EXPECT_GT(compare(gemm_i8_kernels(), bits, 40), 0);
}

TEST(Gemm, NarrowWeightsInWideRows) {
  for (const int bits : {2, 4}) EXPECT_GT(compare(gemm_i8_kernels(), bits, 25), 0);
}

TEST(Gemm, PackedWeights) {
  for (const int bits : {2, 3, 4}) EXPECT_GT(compare(gemm_i4_kernels(), bits, 40), 0);
}

// The bytes of packed weights are their bits, but for the tails of panels.
TEST(Gemm, PackedWeightsTakeTheirBits) {
  const GemmI8Shape shape{.n = 192, .k = 768};
  for (const GemmI4Kernel* row : gemm_i4_kernels()) {
    for (const int bits : {2, 3, 4})
      EXPECT_EQ(row->packed_bytes(shape, bits), static_cast<size_t>(192 * 768 * bits / 8))
          << row->name;
  }
}

// Every pair of bytes: row i of `a` holds code i, column j the weight j - 128.
TEST(Gemm, EveryPairOfBytes) {
  Gemm g;
  g.form = {256, 256, 1};
  g.shape = {.n = 256, .k = 1};
  g.stride_x = 1, g.out_stride = 256;
  g.c.resize(256), g.b.resize(256), g.m.resize(256, 1.0f), g.residual.resize(256 * 256);
  for (int i = 0; i < 256; ++i) {
    g.a.push_back(static_cast<uint8_t>(i));
    g.w.push_back(static_cast<int8_t>(i - 128));
  }
  g.a.resize(256 + kBehind);
  for (const GemmI8Kernel* row : gemm_i8_kernels()) {
    if (!isa_available(row->isa)) continue;
    const Answer got = answer(*row, g);
    for (int i = 0; i < 256; ++i) {
      for (int j = 0; j < 256; ++j)
        ASSERT_EQ(got.floats[static_cast<size_t>(i * 256 + j)], static_cast<float>(i * (j - 128)))
            << row->name;
    }
  }
}

// The largest sums of pairs that 16 bits hold, and the smallest that they do not.
TEST(Gemm, PairBound) {
  const int8_t at_limit[] = {64, 64, -64, -64, 1, -128};
  EXPECT_EQ(pair_bound({.n = 1, .k = 6}, at_limit, 255), 128 * 255);
  const int8_t odd[] = {127, 127, 127};  // lines of one code have no pairs
  EXPECT_EQ(pair_bound({.n = 1, .k = 3, .lines = 3}, odd, 255), 127 * 255);
  EXPECT_EQ(pair_bound({.n = 1, .k = 3}, odd, 255), 254 * 255);
  std::mt19937 random(9);
  for (const int8_t w : {int8_t{64}, int8_t{-64}, int8_t{65}, int8_t{-65}}) {
    Case form{7, 17, 97};
    form.extremes = true;
    Gemm g = make(random, form);
    std::fill(g.w.begin(), g.w.end(), w);
    std::fill(g.a.begin(), g.a.end(), uint8_t{255});
    const Answer want = by_the_contract(g);
    for (const GemmI8Kernel* row : gemm_i8_kernels()) {
      if (isa_available(row->isa)) {
        EXPECT_TRUE(want == answer(*row, g)) << row->name;
      }
    }
  }
}

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// g++ 12 is apt to keep some of the 24 accumulators of a tile on the stack, at half the speed:
// between the first and the last product of the 6 x 64 tile nothing wide may be stored there.
TEST(Gemm, TilesKeepTheirSumsInRegisters) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command = "objdump -d --no-show-raw-insn '" + program + "' 2> /dev/null";
  FILE* listing = ::popen(command.c_str(), "r");
  ASSERT_NE(listing, nullptr);
  bool inside = false;
  int tiles = 0, products = 0, stores = 0, since_product = 0;
  char buffer[4096];
  while (std::fgets(buffer, sizeof(buffer), listing) != nullptr) {
    const std::string line = buffer;
    const auto has = [&](const char* what) { return line.find(what) != std::string::npos; };
    if (line.ends_with(">:\n")) {
      inside = has("tiles512") && has("4tileI") && has("BytesELi6ELi4E");
      tiles += inside ? 1 : 0;
      products = inside ? 0 : products, since_product = 0;
    } else if (inside && has("vpdpbusd")) {
      ++products;
      stores += std::exchange(since_product, 0);
    } else if (inside && products > 0) {
      const bool to_stack =
          has("vmov") && has("%zmm") && (line.ends_with("(%rsp)\n") || line.ends_with("(%rbp)\n"));
      since_product += to_stack ? 1 : 0;
    }
  }
  const int status = ::pclose(listing);
  if (status != 0) {
    std::printf("SKIPPED: no objdump to look at the compiled tiles with\n");
    GTEST_SKIP();
  }
  EXPECT_GE(tiles, 1);
  EXPECT_EQ(stores, 0);
}
#endif

}  // namespace
}  // namespace repquant::runtime
