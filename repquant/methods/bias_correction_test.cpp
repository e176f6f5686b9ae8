#include "repquant/methods/testing.h"

namespace repquant {
namespace {

using namespace testing;

TEST(BiasCorrectionMethod, LowersTheMeanErrorOfTheLogits) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 3, 32);
  const at::Tensor want = float_output(ws, ws.reference);
  run_method(ws, "round_to_nearest", {{"activations", false}});
  const double before = (quantized_output(ws) - want).mean(0).square().sum().item<double>();
  run_method(ws, "bias_correction");
  const double after = (quantized_output(ws) - want).mean(0).square().sum().item<double>();
  EXPECT_LT(after, before);
}

TEST(BiasCorrectionMethod, IsRefusedWhereItWasAppliedAlready) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  run_method(ws, "repq_vit");
  try {
    run_method(ws, "bias_correction");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("already applied"), std::string::npos);
  }
}

}  // namespace
}  // namespace repquant
