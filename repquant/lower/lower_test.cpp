#include <gtest/gtest.h>
#include "repquant/lower/lower.h"
#include "repquant/lower/summary.h"
#include "repquant/lower/testing.h"
namespace repquant {
TEST(Lower, Variants) {
  for (const auto& o : testing::tiny_vit_variants()) {
    SCOPED_TRACE(o.seed);
    const auto m = testing::tiny_vit(o);
    m.graph.verify();
    const Plan p = lower(m.graph, m.plan);
    if (o.seed == 1) std::cout << print(p);
  }
}
}
