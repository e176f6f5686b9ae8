#include "repquant/runtime/c_api.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
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

#ifdef REPQUANT_C_EXAMPLE
TEST_F(CApi, TheExampleInPlainCRuns) {
  EXPECT_EQ(std::system((std::string(REPQUANT_C_EXAMPLE) + " " + path_ + " > /dev/null").c_str()),
            0);
}
#endif

}  // namespace
}  // namespace repquant
