#include "repquant/core/random.h"

#include <gtest/gtest.h>

namespace repquant {
namespace {

// First outputs of the reference implementation (prng.di.unimi.it/splitmix64.c).
TEST(SplitMix64, GivesThePublishedOutputs) {
  uint64_t state = 1234567;
  for (const uint64_t want : {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                              4593380528125082431u, 16408922859458223821u}) {
    EXPECT_EQ(splitmix64(state), want);
  }
}

}  // namespace
}  // namespace repquant
