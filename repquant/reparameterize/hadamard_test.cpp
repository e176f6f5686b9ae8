#include "repquant/reparameterize/hadamard.h"

#include <gtest/gtest.h>

namespace repquant::reparameterize {
namespace {

TEST(Hadamard, IsOrthogonal) {
  for (const int64_t n : {1, 2, 12, 16, 24, 32, 64, 192, 384, 768}) {
    const auto h = random_rotation(n, 5);
    ASSERT_TRUE(h.has_value()) << n;
    const at::Tensor product = at::mm(*h, h->t());
    EXPECT_LE((product - at::eye(n, at::kDouble)).abs().max().item<double>(), 1e-12) << n;
  }
}

TEST(Hadamard, OtherOrdersAreRefused) {
  for (const int64_t n : {0, 3, 6, 20, 100}) EXPECT_FALSE(hadamard(n).has_value()) << n;
}

TEST(Hadamard, SignsDependOnTheSeedOnly) {
  EXPECT_TRUE(at::equal(*random_rotation(64, 1), *random_rotation(64, 1)));
  EXPECT_FALSE(at::equal(*random_rotation(64, 1), *random_rotation(64, 2)));
}

}  // namespace
}  // namespace repquant::reparameterize
