#include "repquant/runtime/c_api.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/core/artifact.h"
#include "repquant/runtime/session.h"
#include "repquant/runtime/testing.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// An artifact in a folder of its own.
class CApi : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "repquant_c_api_XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    plan_ = testing::make_vit({16, 4, 32, 2, 64, 10, 2, 4, false}, 5);
    path_ = (folder_ / "a.rq.safetensors").string();
    write_artifact(path_, plan_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
  std::string path_;
  Plan plan_;
};

TEST_F(CApi, AnswersAsTheSessionDoes) {
  rq_program* program = nullptr;
  ASSERT_EQ(rq_program_open(path_.c_str(), nullptr, 0, &program), RQ_OK) << rq_last_error();
  EXPECT_EQ(rq_program_inputs(program), 1);
  EXPECT_EQ(rq_program_outputs(program), 1);
  const int64_t in = rq_program_input_size(program, 0), out = rq_program_output_size(program, 0);
  EXPECT_EQ(in, 3 * 16 * 16);
  EXPECT_EQ(out, 10);
  EXPECT_EQ(rq_program_input_size(program, 1), -1);
  testing::Random random(3);
  const std::vector<float> x = random.reals(2 * in, -2, 2);
  std::vector<float> y(static_cast<size_t>(2 * out)), want = y;
  rq_session* session = nullptr;
  ASSERT_EQ(rq_session_create(program, 2, 2, &session), RQ_OK) << rq_last_error();
  rq_program_close(program);  // sessions keep what they need
  const void* inputs[] = {x.data()};
  void* outputs[] = {y.data()};
  ASSERT_EQ(rq_session_run(session, 2, inputs, outputs), RQ_OK) << rq_last_error();

  Session direct(Program::from_plan(plan_), {.max_batch = 2});
  Shape in_shape = plan_.buffers[static_cast<size_t>(plan_.inputs[0])].item_shape,
        out_shape = plan_.buffers[static_cast<size_t>(plan_.outputs[0])].item_shape;
  in_shape.insert(in_shape.begin(), 2);
  out_shape.insert(out_shape.begin(), 2);
  const ConstTensorView from{x.data(), DType::kF32, in_shape};
  const TensorView to{want.data(), DType::kF32, out_shape};
  direct.run({&from, 1}, {&to, 1});
  EXPECT_EQ(std::memcmp(y.data(), want.data(), y.size() * 4), 0);

  EXPECT_EQ(rq_session_run(session, 3, inputs, outputs), RQ_INVALID_ARGUMENT);
  EXPECT_THAT(rq_last_error(), HasSubstr("N in 1 .. 2"));
  EXPECT_EQ(rq_session_run(session, 1, nullptr, outputs), RQ_INVALID_ARGUMENT);
  rq_session_destroy(session);
}

TEST_F(CApi, FailuresAreCodesAndMessages) {
  rq_program* program = nullptr;
  EXPECT_EQ(rq_program_open((folder_ / "none").c_str(), nullptr, 0, &program), RQ_NOT_FOUND);
  EXPECT_THAT(rq_last_error(), HasSubstr("none"));
  EXPECT_EQ(program, nullptr);
  EXPECT_EQ(rq_program_open(path_.c_str(), "avx9000", 0, &program), RQ_UNSUPPORTED);
  EXPECT_EQ(rq_program_open(nullptr, nullptr, 0, &program), RQ_INVALID_ARGUMENT);
  fs::resize_file(path_, 100);
  EXPECT_EQ(rq_program_open(path_.c_str(), nullptr, 0, &program), RQ_CORRUPT_FILE);
  rq_session* session = nullptr;
  EXPECT_EQ(rq_session_create(nullptr, 1, 1, &session), RQ_INVALID_ARGUMENT);
  rq_program_close(nullptr);
  rq_session_destroy(nullptr);
}

TEST_F(CApi, DescribesInputsAndOutputs) {
  rq_program* program = nullptr;
  ASSERT_EQ(rq_program_open(path_.c_str(), "scalar", 0, &program), RQ_OK);
  EXPECT_STREQ(rq_program_isa(program), "scalar");
  EXPECT_STREQ(rq_program_input_name(program, 0), "image");
  EXPECT_STREQ(rq_program_input_name(program, 1), "");
  EXPECT_STRNE(rq_program_output_name(program, 0), "");
  EXPECT_EQ(rq_program_input_type(program, 0), RQ_F32);
  EXPECT_EQ(rq_program_output_type(program, -1), RQ_OTHER_TYPE);
  int64_t dims[3] = {-1, -1, -1};
  EXPECT_EQ(rq_program_input_shape(program, 0, dims, 2), 3);
  EXPECT_THAT(dims, ::testing::ElementsAre(3, 16, -1));
  EXPECT_EQ(rq_program_output_shape(program, 0, nullptr, 0), 2);
  EXPECT_EQ(rq_program_output_shape(program, 7, dims, 3), -1);
  EXPECT_EQ(rq_program_input_size(nullptr, 0), -1);
  rq_program_close(program);
}

TEST_F(CApi, ACancelledRunLeavesTheSessionUsable) {
  rq_program* program = nullptr;
  rq_session* session = nullptr;
  ASSERT_EQ(rq_program_open(path_.c_str(), nullptr, 0, &program), RQ_OK);
  ASSERT_EQ(rq_session_create(program, 1, 1, &session), RQ_OK);
  rq_program_close(program);
  EXPECT_GT(rq_session_memory(session), 0u);
  const std::vector<float> x(3 * 16 * 16, 0.5f);
  std::vector<float> first(10), second(10);
  const void* inputs[] = {x.data()};
  void* outputs[] = {first.data()};
  ASSERT_EQ(rq_session_run(session, 1, inputs, outputs), RQ_OK);
  rq_session_cancel(session);  // none is in progress: the next one
  outputs[0] = second.data();
  EXPECT_EQ(rq_session_run(session, 1, inputs, outputs), RQ_CANCELLED);
  EXPECT_THAT(rq_last_error(), HasSubstr("interrupted after 0 of"));
  EXPECT_EQ(rq_session_run(session, 1, inputs, outputs), RQ_OK);
  EXPECT_EQ(first, second);

  std::atomic<bool> ended{false};  // one in progress, from another thread
  std::thread other([&] {
    while (!ended.load()) {
      rq_session_cancel(session);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  int status = RQ_OK;
  while (status == RQ_OK) status = rq_session_run(session, 1, inputs, outputs);
  ended.store(true);
  other.join();
  EXPECT_EQ(status, RQ_CANCELLED);
  rq_session_destroy(session);
}

TEST_F(CApi, AMemoryCapIsKept) {
  rq_program* program = nullptr;
  EXPECT_EQ(rq_program_open(path_.c_str(), nullptr, 1000, &program), RQ_RESOURCE_EXHAUSTED);
  EXPECT_THAT(rq_last_error(), HasSubstr("raise the cap"));
  ASSERT_EQ(rq_program_open(path_.c_str(), nullptr, uint64_t{1} << 20, &program), RQ_OK);
  rq_session* session = nullptr;
  EXPECT_EQ(rq_session_create(program, 1000, 1, &session), RQ_RESOURCE_EXHAUSTED);
  EXPECT_THAT(rq_last_error(), HasSubstr("smallest change that fits: max_batch"));
  EXPECT_EQ(session, nullptr);
  rq_program_close(program);
}

// Several inputs and outputs, in the artifact's order.
TEST_F(CApi, SeveralInputsAndOutputs) {
  testing::PlanBuilder b(9);
  const int x = b.input("left", {2, 3}), y = b.input("right", {2, 3});
  const int sum = b.step("add", {x, y}, DType::kF32, {2, 3}, 32);
  const int positive = b.activation(sum, "relu");
  Plan plan = b.finish(positive);
  plan.outputs = {sum, positive};
  write_artifact(path_, plan);
  rq_program* program = nullptr;
  rq_session* session = nullptr;
  ASSERT_EQ(rq_program_open(path_.c_str(), nullptr, 0, &program), RQ_OK) << rq_last_error();
  EXPECT_EQ(rq_program_inputs(program), 2);
  EXPECT_EQ(rq_program_outputs(program), 2);
  EXPECT_STREQ(rq_program_input_name(program, 1), "right");
  ASSERT_EQ(rq_session_create(program, 1, 0, &session), RQ_OK);
  const std::vector<float> a{1, -2, 3, -4, 5, -6}, c{1, 1, -9, 1, 1, 1};
  std::vector<float> total(6), kept(6);
  const void* inputs[] = {a.data(), c.data()};
  void* outputs[] = {total.data(), kept.data()};
  ASSERT_EQ(rq_session_run(session, 1, inputs, outputs), RQ_OK) << rq_last_error();
  EXPECT_THAT(total, ::testing::ElementsAre(2, -1, -6, -3, 6, -5));
  EXPECT_THAT(kept, ::testing::ElementsAre(2, 0, 0, 0, 6, 0));
  outputs[1] = total.data();
  EXPECT_EQ(rq_session_run(session, 1, inputs, outputs), RQ_INVALID_ARGUMENT);
  rq_session_destroy(session);
  rq_program_close(program);
}

#ifdef REPQUANT_C_EXAMPLE
TEST_F(CApi, TheExampleInPlainCRuns) {
  EXPECT_EQ(std::system((std::string(REPQUANT_C_EXAMPLE) + " " + path_ + " > /dev/null").c_str()),
            0);
}
#endif

}  // namespace
}  // namespace repquant
