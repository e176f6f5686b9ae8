#include "repquant/methods/testing.h"

namespace repquant {
namespace {

using namespace testing;

TEST(GptqMethod, BeatsRoundingOfTheSameRanges) {
  ThreadPool pool(1);
  Workspace rounded = tiny_workspace(pool, 3, 32), better = tiny_workspace(pool, 3, 32);
  const at::Tensor want = float_output(rounded, rounded.reference);
  run_method(rounded, "round_to_nearest",
             {{"activations", false}, {"observer", std::string("mse")}});
  run_method(better, "gptq");
  EXPECT_LT(output_error(better, want), output_error(rounded, want));
}

TEST(GptqMethod, RefusesWeightsThatAreRoundedAlready) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  run_method(ws, "round_to_nearest");
  EXPECT_THROW(run_method(ws, "gptq"), Error);
}

}  // namespace
}  // namespace repquant
