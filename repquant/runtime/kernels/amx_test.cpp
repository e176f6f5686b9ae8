// The row on tiles over an emulation of the tile instructions: layouts, tails, windows, the guard.
// The instructions themselves run in the self-test at start-up, on machines that have them.
#include <gtest/gtest.h>

#include <utility>

#include "repquant/runtime/kernels/amx_unit.h"
#include "repquant/runtime/kernels/target.h"
#include "repquant/runtime/kernels/testing_gemm.h"

#if defined(__x86_64__)
#include "repquant/runtime/kernels/gemm_i8/amx.h"

namespace repquant::runtime {
namespace {

using namespace testing;

// The eight tiles of the unit, as the instruction set reference has tdpbusd: dword (m, n) of the
// sums gains the products of four u8 of row m, dword k of the first operand, with four s8 of row k,
// dword n of the second.
class EmulatedTiles {
 public:
  bool guarded() const { return guarded_; }
  uint64_t cycles() { return clock_ += 10; }
  void configure() { EXPECT_FALSE(std::exchange(configured_, true)); }
  void release() { EXPECT_TRUE(std::exchange(configured_, false)); }
  void zero() { std::memset(sums_, 0, sizeof(sums_)); }
  void multiply(const uint8_t* a0, const uint8_t* a1, int64_t stride, const int8_t* w0,
                const int8_t* w1) {
    count();
    product(sums_[0], a0, stride, w0), product(sums_[1], a0, stride, w1);
    product(sums_[2], a1, stride, w0), product(sums_[3], a1, stride, w1);
  }
  void multiply_flat(const uint8_t* a, int64_t stride, const int8_t* const (&w)[4]) {
    ++flat_;
    count();
    for (int t = 0; t < 4; ++t) product(sums_[t], a, stride, w[t]);
  }
  void store_flat(int32_t* to) const {
    for (int t = 0; t < 4; ++t) {
      for (int r = 0; r < 16; ++r) std::memcpy(to + r * 64 + t * 16, sums_[t][r], 64);
    }
  }
  void store(int32_t* to) const {
    for (int t = 0; t < 4; ++t) {
      for (int r = 0; r < 16; ++r)
        std::memcpy(to + (t / 2 * 16 + r) * 32 + t % 2 * 16, sums_[t][r], 64);
    }
  }
  EmulatedTiles(bool guarded, int64_t lost_at, int64_t lost_every = 0)
      : guarded_(guarded), lost_at_(lost_at), lost_every_(lost_every) {}
  int64_t multiplied() const { return multiplied_; }
  int64_t flat() const { return flat_; }
  bool configured() const { return configured_; }

 private:
  void count() {
    EXPECT_TRUE(configured_);
    ++multiplied_;
    if (lost_at_ == multiplied_ || (lost_every_ > 0 && multiplied_ % lost_every_ == 0)) {
      zero();  // a switch of tasks that brings back tiles of zeros
      clock_ += 1'000'000;
    }
  }
  static void product(int32_t (&sums)[16][16], const uint8_t* a, int64_t stride, const int8_t* w) {
    for (int m = 0; m < 16; ++m) {
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 16; ++n) {
          for (int i = 0; i < 4; ++i)
            sums[m][n] += int32_t{a[m * stride + 4 * k + i]} * w[64 * k + 4 * n + i];
        }
      }
    }
  }
  bool guarded_, configured_ = false;
  int64_t lost_at_, lost_every_, multiplied_ = 0, flat_ = 0;
  uint64_t clock_ = 0;
  int32_t sums_[4][16][16] = {};
};

Answer on_tiles(EmulatedTiles& tiles, const Gemm& g) {
  AlignedBytes packed(amx::packed_bytes(g.shape) + 64);
  amx::pack(g.shape, g.w.data(), packed.data());
  return answer(g, packed.data(), amx::scratch_bytes(g.shape),
                [&](const GemmI8Args& args) { amx::run(tiles, gemm_i8_amx, args); });
}

// The epilogue is that of AVX-512.
bool can_run() {
  if (isa_available(Isa::kAvx512Vnni)) return true;
  std::printf("SKIPPED: the row on tiles needs avx512vnni, which this machine lacks\n");
  return false;
}

TEST(Amx, FollowsTheContractOnEmulatedTiles) {
  if (!can_run()) GTEST_SKIP();
  std::mt19937 random(31);
  for (const Case& form : cases(random, 8, 32)) {
    const Gemm g = make(random, form);
    EmulatedTiles tiles(false, 0);
    EXPECT_TRUE(by_the_contract(g) == on_tiles(tiles, g))
        << form.rows << " x " << g.shape.k << " x " << form.n << ", lines " << g.shape.lines;
  }
}

TEST(Amx, GuardRepeatsBlocksThatLostTheirTiles) {
  if (!can_run()) GTEST_SKIP();
  std::mt19937 random(32);
  const Gemm g = make(random, {40, 40, 200});
  const Answer want = by_the_contract(g);
  EmulatedTiles undisturbed(true, 0);
  EXPECT_TRUE(want == on_tiles(undisturbed, g));
  int wrong = 0;
  for (int64_t at = 1; at <= undisturbed.multiplied() / 3; ++at) {
    EmulatedTiles bare(false, at), guarded(true, at);
    wrong += want == on_tiles(bare, g) ? 0 : 1;
    EXPECT_TRUE(want == on_tiles(guarded, g)) << at;
    EXPECT_GT(guarded.multiplied(), undisturbed.multiplied()) << at;
  }
  EXPECT_GT(wrong, 0);  // tiles lost before a block's first product do no harm
}

// Sixteen rows or fewer, alone or behind whole blocks, take one tile of codes and four of weights.
TEST(Amx, FewRowsAreFlat) {
  if (!can_run()) GTEST_SKIP();
  std::mt19937 random(33);
  for (const auto& [rows, flat] : {std::pair<int64_t, int64_t>{5, 6}, {16, 6}, {17, 0}, {48, 6}}) {
    const Gemm g = make(random, {rows, 80, 130});  // two blocks of columns, three steps
    EmulatedTiles tiles(false, 0);
    EXPECT_TRUE(by_the_contract(g) == on_tiles(tiles, g)) << rows;
    EXPECT_EQ(tiles.flat(), 3 * flat) << rows;  // of codes, floats, floats with a residual
  }
}

// Housekeeping under stress: tiles lost again and again, at every distance that leaves a block's
// repetition a chance, through products of all shapes. The unit is configured once a product,
// released at its end, and never used outside.
TEST(Amx, GuardHoldsWhileTilesAreLostAgainAndAgain) {
  if (!can_run()) GTEST_SKIP();
  std::mt19937 random(34);
  int repeated = 0;
  for (const Case& form : cases(random, 8, 16)) {
    const Gemm g = make(random, form);
    const Answer want = by_the_contract(g);
    EmulatedTiles undisturbed(true, 0);
    EXPECT_TRUE(want == on_tiles(undisturbed, g));
    // A block has at most as many steps as the product: one of two tries is whole.
    const int64_t steps = amx::tile_steps(g.shape);
    for (const int64_t every : {2 * steps + 1, 3 * steps + 2, 7 * steps + 5}) {
      EmulatedTiles tiles(true, 0, every);
      EXPECT_TRUE(want == on_tiles(tiles, g)) << form.rows << " x " << form.n << " every " << every;
      EXPECT_FALSE(tiles.configured());
      repeated += tiles.multiplied() > undisturbed.multiplied() ? 1 : 0;
    }
  }
  EXPECT_GT(repeated, 0);
}

// Gemm.EightBits and the others walk the real row where it can run.
TEST(Amx, RealTilesKeepTheirSums) {
  if (!isa_available(Isa::kAmx)) {
    std::printf("SKIPPED: no tile products on this machine\n");
    GTEST_SKIP();
  }
  EXPECT_TRUE(tiles_keep_their_sums());
}

}  // namespace
}  // namespace repquant::runtime
#endif
