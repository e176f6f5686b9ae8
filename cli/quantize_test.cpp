// repquant as a process, on the demo transformer: quantize and what follows, interruptions, bad
// input.
#include <algorithm>
#include <random>
#include <thread>

#include "cli/testing_demo.h"
#include "repquant/load/load.h"

namespace repquant::cli {
namespace {

using namespace testing;

class Quantize : public Demo {};

TEST_F(Quantize, ResultIsWhatTheSchemaSays) {
  expect_schema(Demo::result(), "quantize");
  const auto result = Demo::result().json()["result"];
  EXPECT_EQ(result["bytes"], fs::file_size(reference()));
  EXPECT_FALSE(fs::exists(reference() + ".work"));
  EXPECT_TRUE(fs::exists(reference() + ".run.json"));
}

TEST_F(Quantize, SameBytesForOneAndTwoThreadsAndFromItsOwnRecipe) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  ASSERT_EQ(run(command(out, {"--threads", "1"})).exit, 0);
  EXPECT_EQ(read_text(out), read_text(reference()));
  const std::vector<std::string> again{kTool,       "quantize", kModel,
                                       "-o",        out,        "--data",
                                       data(),      "--recipe", reference() + ".recipe.toml",
                                       "--threads", "2",        "--force"};
  const Ended ended = run(again);
  ASSERT_EQ(ended.exit, 0) << ended.err;
  EXPECT_EQ(read_text(out), read_text(reference()));
  EXPECT_EQ(read_text(out + ".recipe.toml"), read_text(reference() + ".recipe.toml"));
}

TEST_F(Quantize, AnExistingOutputIsKept) {
  const std::string before = read_text(reference());
  const Ended ended = run(command(reference()));
  EXPECT_EQ(ended.exit, kUsage);
  expect_message(ended, "exists already");
  EXPECT_EQ(read_text(reference()), before);
}

TEST_F(Quantize, KilledAtTenMomentsTheSameCommandGivesTheSameBytes) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  std::mt19937 random(7);
  int kills = 0, resumed = 0;
  for (int i = 0; i < 10; ++i) {
    if (fs::exists(out) && !fs::exists(out + ".work")) fs::remove(out);
    Process process(command(out));
    const int block = std::uniform_int_distribution<int>(1, 8)(random);
    process.wait_for("block " + std::to_string(block) + "/");
    std::this_thread::sleep_for(
        std::chrono::milliseconds(std::uniform_int_distribution<int>(0, 60)(random)));
    process.send(SIGKILL);
    kills += process.wait().exit == 128 + SIGKILL ? 1 : 0;
  }
  if (fs::exists(out) && !fs::exists(out + ".work")) fs::remove(out);
  const Ended ended = run(command(out));
  ASSERT_EQ(ended.exit, 0) << ended.err;
  resumed = ended.err.find("resumed: ") != std::string::npos ? 1 : 0;
  EXPECT_EQ(read_text(out), read_text(reference()));
  EXPECT_GE(kills, 5);
  EXPECT_EQ(resumed, 1) << ended.err;
  for (const std::string& name : folder.names())
    EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
}

// At each of the three names: a new record or recipe never lies beside an old artifact.
TEST_F(Quantize, KilledBetweenTheNamesTheSameCommandGoesOn) {
  for (const char* part : {"", ".run.json", ".recipe.toml"}) {
    const Folder folder;
    const std::string out = folder.file("a.rq.safetensors");
    for (const char* file : {"", ".run.json", ".recipe.toml"}) write_text(out + file, "old");
    std::vector<std::string> words = command(out, {"--force"});
    words[0] = REPQUANT_WRONG;
    words.insert(words.begin(),
                 {"/usr/bin/env", "REPQUANT_KILL_AT_RENAME=/a.rq.safetensors" + std::string(part)});
    EXPECT_EQ(run(words).exit, 128 + SIGKILL) << part;
    const bool replaced = read_text(out) != "old";
    EXPECT_EQ(replaced, *part != 0);
    for (const char* file : {".run.json", ".recipe.toml"})
      EXPECT_TRUE(replaced || read_text(out + file) == "old") << part << file;
    EXPECT_TRUE(fs::exists(out + ".work/run.json"));
    // What the killed run wrote is its own; what was there before it is not.
    const Ended again = run(command(out));
    EXPECT_EQ(again.exit, replaced ? kDone : kUsage) << again.err;
    if (!replaced) {
      EXPECT_EQ(run(command(out, {"--force"})).exit, kDone);
    }
    EXPECT_EQ(read_text(out), read_text(reference()));
    EXPECT_EQ(read_text(out + ".recipe.toml"), read_text(reference() + ".recipe.toml"));
    EXPECT_EQ(folder.names().size(), 3u);
  }
}

TEST_F(Quantize, SavedStateOfAnotherOutputIsNoLeaveToReplace) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors"), work = folder.file("w");
  Process other_run(command(folder.file("b.rq.safetensors"), {"--work-dir", work}));
  ASSERT_TRUE(other_run.wait_for("block 3/"));
  other_run.send(SIGKILL);
  other_run.wait();
  Process same_run(command(out));
  ASSERT_TRUE(same_run.wait_for("block 3/"));
  same_run.send(SIGKILL);
  same_run.wait();
  ASSERT_TRUE(fs::exists(work + "/run.json") && fs::exists(out + ".work/run.json"));
  write_text(out, "finished");
  for (const auto& more : {std::vector<std::string>{"--work-dir", work}, {}}) {
    const Ended ended = run(command(out, more));
    EXPECT_EQ(ended.exit, kUsage);
    expect_message(ended, "exists already");
    EXPECT_EQ(read_text(out), "finished");
  }
  ASSERT_EQ(run(command(out, {"--force", "--work-dir", work, "--keep"})).exit, kDone);
  EXPECT_EQ(run(command(out, {"--work-dir", work})).exit, kUsage);
}

TEST_F(Quantize, OnlyItsOwnTemporaryFilesAreRemoved) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  const std::vector<std::string> users{".notes.tmp", ".1.tmp", ".run.json.tmp", ".run.json.1.b.tmp",
                                       ".staged.tmp.old"},
      ours{".staged.tmp", ".staged.tmp.7.0.tmp", ".run.json.7.0.tmp", ".recipe.toml.7.12.tmp"};
  for (const auto& names : {users, ours})
    for (const std::string& name : names) write_text(out + name, "x");
  ASSERT_EQ(run(command(out)).exit, kDone);
  for (const std::string& name : users) EXPECT_TRUE(fs::exists(out + name)) << name;
  for (const std::string& name : ours) EXPECT_FALSE(fs::exists(out + name)) << name;
}

TEST_F(Quantize, CtrlCSavesAndNamesTheWayOn) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  Process process(command(out));
  ASSERT_TRUE(process.wait_for("block 3/"));
  process.send(SIGINT);
  const Ended stopped = process.wait();
  EXPECT_EQ(stopped.exit, kInterrupted);
  expect_message(stopped, "run the same command to go on: repquant quantize");
  EXPECT_FALSE(fs::exists(out));
  const Ended changed = run(command(out, {"--seed", "5"}));
  EXPECT_EQ(changed.exit, kUsage);
  expect_message(changed, "changed");
  const Ended resumed = run(command(out, {"--resume", "require"}));
  EXPECT_EQ(resumed.exit, 0) << resumed.err;
  EXPECT_EQ(read_text(out), read_text(reference()));
}

TEST_F(Quantize, TwoRunsWithOneOutput) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  Process first(command(out));
  ASSERT_TRUE(first.wait_for("block 1/"));
  first.send(SIGSTOP);
  const Ended second = run(command(out));
  first.send(SIGCONT);
  EXPECT_EQ(second.exit, kUsage);
  expect_message(second, "another run writes this output");
  EXPECT_EQ(first.wait().exit, 0);
  EXPECT_EQ(read_text(out), read_text(reference()));
}

TEST_F(Quantize, FullDiskLeavesNothing) {
  const Folder folder;
  const Ended ended = Process(command(folder.file("a.rq.safetensors")), 60'000).wait();
  EXPECT_EQ(ended.exit, kCapacity);
  expect_message(ended, "");
  EXPECT_TRUE(folder.names().empty()) << folder.names()[0];
}

TEST_F(Quantize, FolderThatCannotBeWritten) {
  const Ended ended = run(command("/sys/a.rq.safetensors"));
  EXPECT_EQ(ended.exit, kUsage) << ended.err;
  expect_message(ended, "/sys/a.rq.safetensors");
}

TEST_F(Quantize, BadRecipesAreUsageErrors) {
  const Folder folder;
  const std::string recipe = folder.file("r.toml"), out = folder.file("a.rq.safetensors");
  const auto with = [&](const std::string& text) {
    write_text(recipe, text);
    return run({kTool, "quantize", kModel, "-o", out, "--data", data(), "--recipe", recipe});
  };
  expect_message(with("shceme = \"w4a4\"\n"), ":1:1: unknown key \"shceme\"; nearest: scheme");
  expect_message(with("[[pass]]\nmethod = \"repqant\"\n"), "nearest: repquant");
  expect_message(with("[[pass]]\nmethod = \"repquant\"\ncilp = \"grid\"\n"),
                 ":3:1: unknown key \"cilp\"; nearest: clip");
  expect_message(with("scheme = \"w1a4\"\n"), "expected 2 to 8 bits, got 1");
  expect_message(with("scheme = \"w4a9\"\n"), "expected 2 to 8 bits, got 9");
  expect_message(with("[[pass]]\nmethod = \"repquant\"\n[budget]\nmax_drop = { top1 = 1.0 }\n"),
                 "not supported");
  const Ended nothing =
      with("[[pass]]\nmethod = \"repquant\"\n[[layer]]\nmatch = \"nosuch.*\"\nweights = 8\n");
  EXPECT_EQ(nothing.exit, kUsage);
  expect_message(nothing, "matches no layer");
  EXPECT_EQ(folder.names().size(), 1u);
  EXPECT_EQ(run(command(out, {"--set", "repquant.clip=sideways"})).exit, kUsage);
  EXPECT_EQ(
      run({kTool, "quantize", kModel, "-o", out, "--data", data(), "--preset", "repquant_w4a5"})
          .exit,
      kUsage);
}

TEST_F(Quantize, PublishedLevelsAreForSimulation) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  const std::vector<std::string> compat{"--preset", "repq_vit_w4a4", "--set",
                                        "repq_vit.compat=true"};
  std::vector<std::string> words{kTool, "quantize", kModel, "-o", out, "--data", data()};
  words.insert(words.end(), compat.begin(), compat.end());
  EXPECT_EQ(run(words).exit, kUnsupported);
  const Ended ended =
      run(eval(kModel, {"--simulate", "repq_vit_w4a4", "--set", "repq_vit.compat=true", "--samples",
                        "8", "--calibration", data(), "--json"}));
  EXPECT_EQ(ended.exit, 0) << ended.err;
  expect_schema(ended, "eval");
  EXPECT_EQ(ended.json()["result"]["kind"], "simulated");
  const Ended without = run(eval(kModel, {"--simulate", "repq_vit_w4a4"}));
  EXPECT_EQ(without.exit, kUsage);
  EXPECT_NE(without.err.find("hint: pass --calibration"), std::string::npos) << without.err;
}

TEST_F(Quantize, BadData) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors"), images = folder.file("images");
  const auto with = [&](const std::string& path, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words{kTool, "quantize", kModel, "-o", out, "--data", path};
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  };
  EXPECT_EQ(with(images).exit, kInput);
  fs::create_directory(images);
  EXPECT_NE(with(images).exit, 0);
  expect_message(with(images), "images");
  write_text(images + "/a.png", "this is no picture");
  EXPECT_EQ(with(images).exit, kInput);
  expect_message(with(images), "a.png");
  write_text(folder.file("short.txt"), "1\n2\n");
  EXPECT_EQ(
      run({kTool, "eval", reference(), "--data", other(), "--labels", folder.file("short.txt")})
          .exit,
      kInput);
}

TEST_F(Quantize, ScoringCalibrationImagesMustBeForced) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  // The same contents in another folder.
  const std::string copy = folder.file("copy.npy");
  fs::copy_file(other(), copy);
  std::vector<std::string> words{
      kTool,   "quantize", kModel,          "-o",          out,  "--data",
      other(), "--preset", "repquant_w4a4", "--eval-data", copy, "--eval-labels",
      labels()};
  const Ended refused = run(words);
  EXPECT_EQ(refused.exit, kUsage);
  EXPECT_NE(refused.err.find("6 of 6 calibration images are also scored"), std::string::npos)
      << refused.err;
  EXPECT_NE(refused.err.find("--force-overlap"), std::string::npos);
  EXPECT_FALSE(fs::exists(out));
  words.push_back("--force-overlap");
  const Ended forced = run(words);
  EXPECT_EQ(forced.exit, 0) << forced.err;
  EXPECT_NE(forced.err.find("also scored"), std::string::npos);
  EXPECT_TRUE(fs::exists(out));
  // `eval --simulate` calibrates, too.
  words = eval(kModel, {"--simulate", "repq_vit_w4a4", "--calibration", copy, "--json"});
  const Ended simulated = run(words);
  EXPECT_EQ(simulated.exit, kUsage);
  EXPECT_NE(simulated.err.find("eval: data: 6 of 6 calibration images are also scored"),
            std::string::npos)
      << simulated.err;
  EXPECT_NE(simulated.err.find("--force-overlap"), std::string::npos);
  EXPECT_EQ(simulated.err.find("block "), std::string::npos) << "calibrated first";
  words.push_back("--force-overlap");
  const Ended seen = run(words);
  EXPECT_EQ(seen.exit, kDone) << seen.err;
  EXPECT_NE(seen.json()["warnings"].dump().find("\"W002\""), std::string::npos);
}

TEST_F(Quantize, OneImageIsEnoughButSaid) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  const std::vector<std::string> words{
      kTool,      "quantize",      kModel,    "-o", out, "--data", data() + "[0:1]",
      "--preset", "repquant_w4a4", "--strict"};
  const Ended ended = run(words);
  EXPECT_EQ(ended.exit, kWarnings) << ended.err;
  EXPECT_NE(ended.err.find("32 samples asked for, 1 found"), std::string::npos);
  EXPECT_TRUE(fs::exists(out));
}

TEST_F(Quantize, BadModels) {
  const Folder folder;
  const std::string bytes = read_text(kModel), broken = folder.file("m.onnx"),
                    out = folder.file("a.rq.safetensors");
  const auto with = [&](const std::string& content) {
    write_text(broken, content);
    return run({kTool, "quantize", broken, "-o", out, "--data", data(), "--samples", "2"});
  };
  EXPECT_EQ(with(bytes.substr(0, bytes.size() / 2)).exit, kInput);
  EXPECT_EQ(with("").exit, kInput);
  const Graph graph = load_model(kModel);
  std::string poisoned = bytes;
  for (size_t id = 0; id < graph.value_count() && poisoned == bytes; ++id) {
    const auto& constant = graph.value(static_cast<ValueId>(id)).constant;
    if (!constant || constant->dtype() != DType::kF32 || constant->size() < 64) continue;
    const size_t at = bytes.find(std::string(static_cast<const char*>(constant->data()), 64));
    if (at == std::string::npos) continue;
    poisoned.replace(at, 4, std::string("\x00\x00\xc0\x7f", 4));
  }
  ASSERT_NE(poisoned, bytes);
  const Ended ended = with(poisoned);
  EXPECT_EQ(ended.exit, kInput) << ended.err;
  expect_message(ended, "NaN");
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST_F(Quantize, BothProgramsScoreAlike) {
  std::vector<std::string> words = eval(reference(), {"--json", "--baseline", reference()});
  const Ended full = run(words);
  words[0] = kRun;
  const Ended small = run(words);
  EXPECT_EQ(full.exit, 0) << full.err;
  expect_schema(full, "eval");
  EXPECT_EQ(full.json()["result"], small.json()["result"]);
  EXPECT_EQ(full.json()["result"]["agreement"], 100.0);
  EXPECT_EQ(full.json()["result"]["difference"], 0.0);
  const Ended gate = run(eval(reference(), {"--min", "top1=100.5"}));
  EXPECT_EQ(gate.exit, kQuality);
}

TEST_F(Quantize, TheOtherVerbsAnswer) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> calls{
      {"verify", {reference(), "--data", other(), "--samples", "1"}},
      {"run", {reference(), "--input", other() + "[0:1]", "--profile"}},
      {"inspect", {reference()}},
      {"compare", {reference(), reference(), "--data", other(), "--samples", "1"}},
      {"report", {reference(), "--format", "md"}},
      {"methods", {"repquant"}}};
  for (const auto& [verb, arguments] : calls) {
    std::vector<std::string> words{kTool, verb, "--json"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const Ended ended = run(words);
    EXPECT_EQ(ended.exit, 0) << verb << ended.err;
    expect_schema(ended, verb);
  }
  EXPECT_EQ(run({kTool, "methods", "repqant"}).exit, kUsage);
  const Ended page = run({kTool, "report", reference(), "--format", "html"});
  EXPECT_NE(page.out.find("</html>"), std::string::npos);
}

TEST_F(Quantize, DryRunWritesNothing) {
  const Folder folder;
  const Ended ended = run(command(folder.file("a.rq.safetensors"), {"--dry-run"}));
  EXPECT_EQ(ended.exit, 0) << ended.err;
  EXPECT_NE(ended.out.find("tier = \"fast\""), std::string::npos) << ended.out;
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace repquant::cli
