// repquant-run as a process: usage, help, exit codes, clean output, start-up.
#include <algorithm>
#include <sstream>

#include "cli/exit_codes.h"
#include "cli/program.h"
#include "cli/terminal.h"
#include "cli/testing.h"
#include "repquant/core/artifact.h"
#include "repquant/core/example_plan.h"

namespace repquant::cli {
namespace {

using namespace testing;

const std::string kRun = REPQUANT_RUN;
constexpr const char* kVerbs[] = {"eval",   "verify",  "run",     "bench",  "inspect",   "compare",
                                  "report", "kernels", "explain", "doctor", "completion"};

TEST(Program, ListsItsVerbs) {
  const Ended ended = run({kRun});
  EXPECT_EQ(ended.exit, 0);
  for (const char* verb : kVerbs) {
    EXPECT_NE(ended.out.find(std::string("  ") + verb), std::string::npos) << verb;
  }
  EXPECT_EQ(ended.out.find("quantize"), std::string::npos);
}

TEST(Program, HelpFitsOneScreen) {
  for (const char* verb : kVerbs) {
    const Ended ended = run({kRun, verb, "--help"});
    EXPECT_EQ(ended.exit, 0);
    EXPECT_LE(std::count(ended.out.begin(), ended.out.end(), '\n'), 40) << ended.out;
    const Ended all = run({kRun, verb, "--help-all"});
    EXPECT_EQ(all.exit, 0);
    EXPECT_NE(all.out.find("--threads"), std::string::npos) << all.out;
  }
}

TEST(Program, UnknownVerbAndOptionNameTheNearest) {
  const Ended verb = run({kRun, "evall"});
  EXPECT_EQ(verb.exit, kUsage);
  expect_message(verb, "unknown verb \"evall\"; nearest: eval");
  const Ended option = run({kRun, "doctor", "--thread", "2"});
  EXPECT_EQ(option.exit, kUsage);
  expect_message(option, "nearest: --threads");
  EXPECT_EQ(run({kRun, "eval"}).exit, kUsage);
  const Ended value = run({kRun, "doctor", "--log-level", "wran"});
  EXPECT_EQ(value.exit, kUsage);
  expect_message(value, "usage: --log-level: unknown value \"wran\"; nearest: warn");
  expect_message(run({kRun, "doctor", "--progress", "rather"}), "expected auto, plain, json");
}

TEST(Program, OptionsMayStandBeforeTheVerb) {
  const Ended ended = run({kRun, "--threads", "1", "--json", "doctor"});
  EXPECT_EQ(ended.exit, 0) << ended.err;
  EXPECT_EQ(ended.json()["machine"]["threads"], 1);
}

TEST(Program, SaysThatItHasNoCalibration) {
  const Ended ended = run({kRun, "quantize", "a.onnx"});
  EXPECT_EQ(ended.exit, kUnsupported);
  expect_message(ended, "this build has no calibration");
}

TEST(Program, DoctorPasses) {
  const Ended ended = run({kRun, "doctor", "--json"});
  EXPECT_EQ(ended.exit, 0);
  expect_schema(ended, "doctor");
  EXPECT_EQ(ended.json()["result"]["self_test"], "passed");
}

TEST(Program, InspectsAnArtifact) {
  const Folder folder;
  const std::string path = folder.file("a b.rq.safetensors");
  write_artifact(path, example_plan());
  const Ended ended = run({kRun, "inspect", path, "--json"});
  EXPECT_EQ(ended.exit, 0) << ended.err;
  expect_schema(ended, "inspect");
  EXPECT_EQ(ended.json()["result"]["digest"], artifact_digest(example_plan()));
  EXPECT_GT(ended.json()["result"]["memory"]["activations_bytes"].get<int64_t>(), 0);
  EXPECT_NE(run({kRun, "inspect", path}).out.find("memory: weights"), std::string::npos);
  EXPECT_EQ(run({kRun, "inspect", path}).err, "");
}

TEST(Program, InspectsAnArtifactOfStrangeProvenance) {
  const Folder folder;
  const std::string path = folder.file("a.rq.safetensors");
  for (const char* text : {"[]", "7", R"({"recipe": []})", R"({"recipe": {"scheme": 5}})"}) {
    Plan plan = example_plan();
    plan.provenance = nlohmann::json::parse(text);
    write_artifact(path, plan);
    EXPECT_EQ(run({kRun, "inspect", path}).exit, 0) << text;
  }
}

Plan with_one_output() {
  Plan plan = example_plan();
  plan.outputs.resize(1);
  return plan;
}

TEST(Program, VerifyComparesEveryInstructionSetThreadsAndBatch) {
  const Folder folder;
  const std::string path = folder.file("a.rq.safetensors"), data = folder.file("x.npy");
  write_artifact(path, with_one_output());
  const Shape item = example_plan().buffers[0].item_shape;
  Tensor x(DType::kF32, {3, item[0], item[1]});
  for (size_t i = 0; i < x.as<float>().size(); ++i)
    x.as<float>()[i] = static_cast<float>(i % 17) * 0.25f - 2.0f;
  write_npy(data, std::as_const(x).view());
  std::string digest;
  for (const char* form : {"full", "short", "full"}) {
    const Ended ended = run({kRun, "verify", path, "--data", data, "--matrix", form, "--json"});
    ASSERT_EQ(ended.exit, 0) << ended.err;
    expect_schema(ended, "verify");
    const nlohmann::json matrix = ended.json()["result"]["matrix"];
    const bool full = form == std::string("full");
    EXPECT_EQ(matrix["combinations"], matrix["isas"].size() * (full ? 9 : 2));
    EXPECT_EQ(matrix["items"], full ? 8 : 1);
    EXPECT_EQ(digest.empty() || digest == matrix["digest"], full);
    if (full) digest = matrix["digest"];
  }
  EXPECT_EQ(run({kRun, "verify", path, "--data", data, "--matrix", "all"}).exit, kUsage);
}

// The table of warnings of docs/cli.md, code by code.
TEST(Program, ExplainsEveryWarningOfThePage) {
  const std::string page = read_text(fs::path(REPQUANT_SOURCE) / "docs" / "cli.md");
  int codes = 0;
  std::istringstream lines(page.substr(page.find("## Warnings")));
  for (std::string line; std::getline(lines, line) && line.rfind("## Exit", 0) != 0;) {
    if (line.rfind("| W", 0) != 0) continue;
    ++codes;
    const Ended ended = run({kRun, "explain", line.substr(2, 4), "--json"});
    EXPECT_EQ(ended.exit, 0) << ended.err;
    expect_schema(ended, "explain");
    std::string means = line.substr(9, line.size() - 11);
    std::erase(means, '`');
    EXPECT_EQ(ended.json()["result"]["means"], means);
  }
  EXPECT_GE(codes, 7);
  const Ended unknown = run({kRun, "explain", "W044"});
  EXPECT_EQ(unknown.exit, kUsage);
  expect_message(unknown, "explain: unknown code \"W044\"; nearest: W004");
}

TEST(Program, ExplainsTheLayersOfAnArtifact) {
  const Folder folder;
  const std::string path = folder.file("a.rq.safetensors");
  write_artifact(path, with_one_output());
  const Ended ended = run({kRun, "explain", path, "--json"});
  ASSERT_EQ(ended.exit, 0) << ended.err;
  expect_schema(ended, "explain");
  const nlohmann::json layers = ended.json()["result"]["layers"];
  EXPECT_EQ(layers.size(), 6u) << layers;
  const Ended one = run({kRun, "explain", path, "fc1", "--json"});
  ASSERT_EQ(one.json()["result"]["layers"].size(), 1u) << one.err;
  EXPECT_EQ(one.json()["result"]["layers"][0]["weight_bits"], 4);
  EXPECT_NE(one.json()["result"]["recipe"].get<std::string>().find("\"fc1\""), std::string::npos);
  expect_message(run({kRun, "explain", path, "fc"}), "unknown layer \"fc\"; nearest: fc1");
}

// bash asks the program for its verbs and options.
TEST(Program, CompletesInBash) {
  const auto completed = [](const std::string& line) {
    const std::string script = "PATH=" + fs::path(kRun).parent_path().string() +
                               ":$PATH; eval \"$(repquant-run completion bash)\"; COMP_WORDS=(" +
                               line + "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _repquant_run; " +
                               "echo ${COMPREPLY[@]}";
    return run({"/bin/bash", "-c", script}).out;
  };
  EXPECT_EQ(completed("repquant-run ver"), "verify\n");
  EXPECT_EQ(completed("repquant-run verify --mat"), "--matrix\n");
  EXPECT_EQ(completed("repquant-run report -o"), "\n");
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Ended ended = run({kRun, "completion", shell, "--json"});
    expect_schema(ended, "completion");
    EXPECT_EQ(ended.json()["result"]["script"].get<std::string>().find('%' + std::string("P")),
              std::string::npos);
  }
  expect_message(run({kRun, "completion", "bsh"}), "nearest: bash");
}

TEST(Program, CtrlCEndsAnEvaluation) {
  const Folder folder;
  const std::string path = folder.file("a.rq.safetensors"), data = folder.file("x.npy");
  write_artifact(path, with_one_output());
  const Shape item = example_plan().buffers[0].item_shape;
  const Tensor x(DType::kF32, {300'000, item[0], item[1]});
  write_npy(data, x.view());
  for (const int number : {SIGINT, SIGTERM}) {
    Process process({kRun, "eval", path, "--baseline", path, "--data", data, "--progress", "json"});
    ASSERT_TRUE(process.wait_for("item "));
    process.send(number);
    const Ended ended = process.wait();
    EXPECT_EQ(ended.exit, number == SIGINT ? kInterrupted : kTerminated) << ended.err;
    expect_message(ended, "evaluate: interrupted after ");
    EXPECT_EQ(ended.out, "");
  }
}

TEST(Program, EveryDamagedByteOfAnArtifactIsRefused) {
  const Folder folder;
  const std::string path = folder.file("a.rq.safetensors"),
                    broken = folder.file("b.rq.safetensors");
  write_artifact(path, example_plan());
  const std::string bytes = read_text(path);
  for (const size_t at : {size_t{0}, size_t{9}, bytes.size() / 3, bytes.size() - 1}) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    write_text(broken, damaged);
    const Ended ended = run({kRun, "inspect", broken});
    EXPECT_EQ(ended.exit, kInput) << at << ended.out << ended.err;
    expect_message(ended, "");
  }
  write_text(broken, bytes.substr(0, bytes.size() / 2));
  EXPECT_EQ(run({kRun, "inspect", broken}).exit, kInput);
}

TEST(Program, MissingAndForeignFiles) {
  const Folder folder;
  expect_message(run({kRun, "inspect", folder.file("no")}), "no such file");
  EXPECT_EQ(run({kRun, "inspect", folder.file("no")}).exit, kInput);
  write_text(folder.file("model.onnx"), "not a model");
  const Ended foreign = run({kRun, "eval", folder.file("model.onnx"), "--data", folder.file("x")});
  EXPECT_EQ(foreign.exit, kUnsupported);
  EXPECT_EQ(
      run({kRun, "eval", folder.file("model.onnx"), "--data", folder.file("x"), "--metric", "ppl"})
          .exit,
      kUnsupported);
}

TEST(Program, FailureIsJsonToo) {
  const Ended ended = run({kRun, "inspect", "/nowhere", "--json"});
  EXPECT_EQ(ended.exit, kInput);
  const nlohmann::json document = ended.json();
  expect_schema(ended, "inspect");
  EXPECT_EQ(document["ok"], false);
  EXPECT_EQ(document["error"]["exit"], kInput);
  EXPECT_EQ(document["error"]["code"], "not_found");
}

TEST(Program, FullStandardOutputIsAnError) {
  const Ended ended = run({"/bin/sh", "-c", "'" + kRun + "' doctor > /dev/full"});
  EXPECT_EQ(ended.exit, kCapacity) << ended.err;
}

TEST(Program, NoColourWithoutATerminal) {
  EXPECT_EQ(run({kRun, "inspect", "/nowhere"}).err.find('\033'), std::string::npos);
  const Ended forced = run({"/bin/sh", "-c", "CLICOLOR_FORCE=1 '" + kRun + "' inspect /nowhere"});
  EXPECT_NE(forced.err.find('\033'), std::string::npos);
  EXPECT_EQ(run({"/bin/sh", "-c", "CLICOLOR_FORCE=1 '" + kRun + "' inspect --no-color /nowhere"})
                .err.find('\033'),
            std::string::npos);
}

// CPU time, which other programs on the machine do not lengthen; best of several.
TEST(Program, StartsWithinTenMilliseconds) {
  double best = 1;
  for (int i = 0; i < 10; ++i) best = std::min(best, run({kRun, "--version"}).cpu_seconds);
#if !defined(__SANITIZE_ADDRESS__)
  EXPECT_LT(best, 0.010);
#endif
}

TEST(Program, LinksNeitherTorchNorProtobuf) {
  const Ended ended = run({"/bin/sh", "-c", "ldd '" + kRun + "'"});
  ASSERT_EQ(ended.exit, 0);
  for (const char* library : {"libtorch", "libc10", "libprotobuf", "onnx"}) {
    EXPECT_EQ(ended.out.find(library), std::string::npos) << ended.out;
  }
}

TEST(ExitCodes, OneAKindOfError) {
  EXPECT_EQ(exit_code(ErrorCode::kInvalidArgument), 2);
  EXPECT_EQ(exit_code(ErrorCode::kCorruptFile), 3);
  EXPECT_EQ(exit_code(ErrorCode::kNotFound), 3);
  EXPECT_EQ(exit_code(ErrorCode::kUnsupported), 4);
  EXPECT_EQ(exit_code(ErrorCode::kResourceExhausted), 7);
  EXPECT_EQ(exit_code(ErrorCode::kVerifyFailed), 8);
  EXPECT_EQ(exit_code(ErrorCode::kInternal), 1);
}

TEST(Sizes, UnitsAndRefusals) {
  EXPECT_EQ(parse_size("2GiB"), uint64_t{2} << 30);
  EXPECT_EQ(parse_size("1.5MiB"), 1572864u);
  EXPECT_EQ(parse_size("10MB"), 10'000'000u);
  EXPECT_EQ(parse_size("77"), 77u);
  for (const char* text : {"", "x", "-1", "0", "5XB", "nan", "1e99GiB"})
    EXPECT_THROW(parse_size(text), Error) << text;
}

TEST(Terminal, EscapesWhatFilesContain) {
  EXPECT_EQ(safe_text("a\x1b[31mb\n"), "a\\x1B[31mb\\x0A");
  EXPECT_EQ(safe_text("caf\xc3\xa9"), "caf\xc3\xa9");
  EXPECT_EQ(safe_text("\xff\xc3"), "\\xFF\\xC3");
}

}  // namespace
}  // namespace repquant::cli
