#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "repquant/runtime/session.h"
#include "repquant/runtime/testing.h"

namespace repquant {
namespace {

using ::testing::HasSubstr;

// The error of a call, which must throw one.
template <class Call> Error error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return {ErrorCode::kInternal, "none"};
}

Plan small_plan() { return testing::make_vit({12, 4, 32, 2, 64, 10, 1, 4, false}, 1); }

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name =
        (std::filesystem::temp_directory_path() / "repquant_runtime_XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

TEST(Program, NamesItsKernels) {
  const auto program = Program::from_plan(small_plan(), {.isa = "scalar"});
  EXPECT_EQ(program->isa(), "scalar");
  for (size_t s = 0; s < program->plan().steps.size(); ++s) {
    EXPECT_THAT(std::string(program->kernel_for(s)), HasSubstr("/scalar"));
  }
  EXPECT_GT(program->weight_bytes(), 0u);
}

TEST(Program, UnknownOpIsRefusedByName) {
  Plan plan = small_plan();
  const Step step{"conv2d", "stem", plan.steps[0].in, plan.steps[0].out, {}, {}, {}, {}};
  const Error made =
      error_of([&] { (void)runtime::make_step_kernel(plan, step, runtime::Isa::kScalar); });
  EXPECT_EQ(made.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(made.what(), HasSubstr("\"conv2d\""));
  EXPECT_THAT(made.what(), HasSubstr("\"stem\""));
  EXPECT_THAT(made.hint(), HasSubstr("attention, layer_norm"));
  plan.steps[0].op = "conv2d";
  EXPECT_EQ(error_of([&] { Program::from_plan(plan); }).code(), ErrorCode::kUnsupported);
}

TEST(Program, UnknownInstructionSetIsRefused) {
  const Error error = error_of([] { Program::from_plan(small_plan(), {.isa = "avx9000"}); });
  EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(error.what(), HasSubstr("avx9000"));
  EXPECT_THAT(error.hint(), HasSubstr("scalar"));
}

TEST(Program, BrokenPlansAreRefusedAtOpen) {
  Plan plan = small_plan();
  for (Step& step : plan.steps) {
    if (step.op == "linear") step.tensors.erase("c");
  }
  EXPECT_EQ(error_of([&] { Program::from_plan(plan); }).code(), ErrorCode::kCorruptFile);
  plan = small_plan();
  plan.steps.back().in[0] = 10'000;
  EXPECT_EQ(error_of([&] { Program::from_plan(plan); }).code(), ErrorCode::kCorruptFile);
}

TEST(Program, MemoryCapSaysWhatWouldFit) {
  const auto free = Program::from_plan(small_plan());
  const uint64_t one = free->arena_bytes(1);
  LoadOptions options;
  options.memory_cap = free->session_bytes(4, 1) + one / 2;
  options.max_batch = 4;
  const auto program = Program::from_plan(small_plan(), options);
  Session fits(program, {4});
  const Error error = error_of([&] { Session(program, {5}); });
  EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
  EXPECT_THAT(error.what(), HasSubstr("weights"));
  EXPECT_THAT(error.what(), HasSubstr("arena"));
  EXPECT_THAT(error.hint(), HasSubstr("max_batch 4"));
  options.max_batch = 6;
  EXPECT_EQ(error_of([&] { Program::from_plan(small_plan(), options); }).code(),
            ErrorCode::kResourceExhausted);
  options.memory_cap = 1000;
  options.max_batch = 1;
  const Error small = error_of([&] { Program::from_plan(small_plan(), options); });
  EXPECT_THAT(small.hint(), HasSubstr("raise the cap to at least"));
  double mebibytes = 0;  // and that cap is enough
  ASSERT_EQ(std::sscanf(small.hint().c_str(), "no batch fits; raise the cap to at least %lf MiB",
                        &mebibytes),
            1);
  options.memory_cap = static_cast<uint64_t>(mebibytes * 1024.0 * 1024.0) + 1;
  Session(Program::from_plan(small_plan(), options), {1});
  EXPECT_EQ(error_of([&] { Session(free, {int64_t{1} << 62}); }).code(),
            ErrorCode::kResourceExhausted);
  EXPECT_EQ(error_of([&] { Session(free, {0}); }).code(), ErrorCode::kInvalidArgument);
}

TEST(Program, MemoryCapCountsThreads) {
  const auto free = Program::from_plan(small_plan());
  ASSERT_GT(free->scratch_bytes(1), 0u);
  LoadOptions options;
  options.memory_cap = free->session_bytes(1, 3);
  const auto program = Program::from_plan(small_plan(), options);
  ThreadPool three(3), eight(8);
  Session fits(program, {1, &three});
  const Error error = error_of([&] { Session(program, {1, &eight}); });
  EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
  EXPECT_THAT(error.what(), HasSubstr("scratch"));
  EXPECT_THAT(error.hint(), HasSubstr("smallest change that fits: threads 3"));
  options.memory_cap = free->session_bytes(2, 1);
  EXPECT_THAT(error_of([&] {
                Session(Program::from_plan(small_plan(), options), {1000, &eight});
              }).hint(),
              HasSubstr("max_batch 2 and threads 1"));
}

TEST(Program, OpensWhatWasWrittenAndRefusesDamage) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "a.rq.safetensors";
  write_artifact(path, small_plan());
  const auto program = Program::open(path);
  EXPECT_EQ(program->plan().steps, small_plan().steps);
  EXPECT_EQ(program->plan().buffers, small_plan().buffers);

  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const auto write = [&](const std::string& content) {
    std::ofstream out(folder / "b", std::ios::binary);
    out << content;
  };
  for (const size_t keep : {size_t{0}, size_t{7}, bytes.size() / 2, bytes.size() - 1}) {
    write(bytes.substr(0, keep));
    EXPECT_EQ(error_of([&] { Program::open(folder / "b"); }).code(), ErrorCode::kCorruptFile)
        << keep;
  }
  std::string flipped = bytes;
  flipped[flipped.size() - 20] = static_cast<char>(flipped[flipped.size() - 20] ^ 4);
  write(flipped);
  EXPECT_NE(error_of([&] { Program::open(folder / "b"); }).code(), ErrorCode::kInternal);
  EXPECT_EQ(error_of([&] { Program::open(folder / "none"); }).code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace repquant
