// Fuzz target of opening and running: the bytes choose a small artifact and a few changes to it,
// all checksums are made right again; what is accepted must run as the simulator says on every
// instruction set.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "repquant/evaluate/testing_mutations.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace repquant;
  static const std::vector<Plan> plans = testing::plans_to_mutate();
  testing::ByteChoices choose({data, size});
  testing::Parts parts(plans[choose.index(plans.size())]);
  const auto seed = static_cast<uint64_t>(choose.integer(0, 255));
  for (int changes = 0; changes < 8 && !choose.empty(); ++changes) testing::mutate(parts, choose);
  std::string detail;
  if (testing::open_and_compare(parts, seed, detail) == testing::Outcome::kDiffers) {
    std::fprintf(stderr, "%s\n", detail.c_str());
    std::abort();
  }
  return 0;
}
