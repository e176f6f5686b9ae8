#include "repquant/methods/testing.h"

namespace repquant {
namespace {

using namespace testing;

TEST(RoundToNearest, FillsEverySiteAndErrorFallsWithBits) {
  ThreadPool pool(1);
  double last = 1e30;
  for (const int bits : {3, 5, 8}) {
    Workspace ws = tiny_workspace(pool, bits);
    const at::Tensor want = float_output(ws, ws.reference);
    run_method(ws, "round_to_nearest");
    for (const auto& [site, target] : ws.targets)
      EXPECT_NE(ws.plan.find(site), nullptr) << site_name(ws.graph, site);
    const double error = output_error(ws, want);
    EXPECT_LT(error, last);
    last = error;
  }
}

TEST(RoundToNearest, WeightsAloneLeaveActivationsFloat) {
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  run_method(ws, "round_to_nearest", {{"activations", false}});
  for (const auto& [site, assignment] : ws.plan.all()) EXPECT_EQ(assignment.role, Role::kWeight);
}

TEST(Methods, UnknownNamesAndOptionsNameTheNearest) {
  try {
    find_method("repqant");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("repquant"), std::string::npos);
  }
  ThreadPool pool(1);
  Workspace ws = tiny_workspace(pool, 4);
  EXPECT_THROW(run_method(ws, "round_to_nearest", {{"observr", std::string("minmax")}}), Error);
  EXPECT_THROW(run_method(ws, "round_to_nearest", {{"observer", std::string("median")}}), Error);
}

TEST(Methods, OneCalibrationSampleIsEnoughAndNoneIsAnError) {
  ThreadPool pool(2);
  for (const char* name : {"round_to_nearest", "repq_vit", "repquant"}) {
    Workspace ws = tiny_workspace(pool, 4, 1);
    run_method(ws, name);
    EXPECT_TRUE(at::isfinite(quantized_output(ws)).all().item<bool>()) << name;
    Workspace empty = tiny_workspace(pool, 4, 1);
    empty.calibration.count = 0;
    EXPECT_THROW(run_method(empty, name), Error) << name;
  }
}

}  // namespace
}  // namespace repquant
