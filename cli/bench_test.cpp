// repquant bench and repquant kernels: contenders, ratios, what ends them.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <set>

#include "cli/testing_demo.h"

namespace repquant::cli {
namespace {

using namespace testing;
using nlohmann::json;

std::vector<std::string> with(const std::vector<std::string>& environment,
                              std::vector<std::string> words) {
  words.insert(words.begin(), environment.begin(), environment.end());
  words.insert(words.begin(), "/usr/bin/env");
  return words;
}

class Bench : public Demo {
 protected:
  static std::vector<std::string> bench(const std::string& program,
                                        const std::vector<std::string>& more,
                                        const std::string& rounds = "5") {
    std::vector<std::string> words{program,    "bench", reference(), "--threads", "1",
                                   "--rounds", rounds,  "--window",  "5"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  // A stand-in for Python: says that it is ready, then runs `answer` for each window.
  static std::vector<std::string> fake(const Folder& folder, const std::string& answer) {
    write_text(folder.file("python"),
               "#!/bin/sh\n[ \"$5\" = --threads ] && cp \"$3\" \"$4\" || exit 9\necho $$ > '" +
                   folder.file("pid") +
                   "'\necho '{\"ready\": true, \"onnxruntime\": \"9.9\"}'\n"
                   "while read window; do " +
                   answer + "; done\n");
    fs::permissions(folder.file("python"), fs::perms::owner_all);
    fs::create_directory(folder.file("tmp"));
    return {"REPQUANT_PYTHON=" + folder.file("python"), "TMPDIR=" + folder.file("tmp")};
  }
};

double middle(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Of odd numbers of rounds.
void expect_ratio(const json& result, const std::string& name) {
  const auto ours = result["contenders"]["repquant"]["samples"].get<std::vector<double>>();
  const auto theirs = result["contenders"][name]["samples"].get<std::vector<double>>();
  ASSERT_EQ(ours.size(), 5u);
  ASSERT_EQ(theirs.size(), 5u);
  std::vector<double> ratios;
  for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(theirs[i] / ours[i]);
  EXPECT_NEAR(result["ratios"][name].get<double>(), middle(ratios), 1e-9 * middle(ratios));
  const json& row = result["contenders"][name];
  EXPECT_EQ(row["median_ms"], middle(theirs));
  EXPECT_EQ(row["best_ms"], *std::min_element(theirs.begin(), theirs.end()));
  EXPECT_LE(row["p10_ms"], row["median_ms"]);
  EXPECT_LE(row["median_ms"], row["p90_ms"]);
}

TEST_F(Bench, AgainstFloatAnArtifactAndALowerRow) {
  const std::string second = "artifact:" + reference();
  const Ended ended =
      run(bench(kTool, {"--against", "float," + second + ",isa:scalar,threads:2", "--float", kModel,
                        "--data", other(), "--batch", "3", "--json"}));
  ASSERT_EQ(ended.exit, 0) << ended.err;
  expect_schema(ended, "bench");
  const json result = ended.json()["result"];
  EXPECT_EQ(result["verified"], true);
  EXPECT_EQ(result["batch"], 3);
  EXPECT_EQ(result["machine"]["threads"], 1);
  EXPECT_EQ(result["data"], "6 items of --data");
  ASSERT_EQ(result["ratios"].size(), 4u);
  for (const std::string& name :
       {std::string("float"), second, std::string("isa:scalar"), std::string("threads:2")})
    expect_ratio(result, name);
  // They compute the same: the same bits, and what float has but for the rounding to 4 bits.
  const json& rows = result["contenders"];
  EXPECT_EQ(rows["repquant"]["sqnr_db"], rows[second]["sqnr_db"]);
  EXPECT_EQ(rows["repquant"]["sqnr_db"], rows["isa:scalar"]["sqnr_db"]);
  EXPECT_GT(rows["repquant"]["sqnr_db"].get<double>(), 0);
  EXPECT_EQ(rows["isa:scalar"]["isa"], "scalar");
  const json& profile = result["profile"];
  for (const char* part : {"gemm_ms", "attention_ms", "other_ms"})
    EXPECT_GT(profile[part].get<double>(), 0) << part;
  std::set<std::string> names;
  for (const json& step : profile["steps"]) names.insert(step["step"].get<std::string>());
  EXPECT_EQ(names.count("blocks.4.mlp.fc1"), 1u);
}

TEST_F(Bench, ModelAndImagesAreThoseOfTheRunRecord) {
  const Ended found = run(bench(kTool, {"--against", "float", "--json"}));
  ASSERT_EQ(found.exit, 0) << found.err;
  EXPECT_EQ(found.json()["result"]["data"], "8 items of the calibration data");
  EXPECT_EQ(found.json()["result"]["contenders"]["float"]["file"], "demo_vit.onnx");
  const Folder folder;
  const std::string alone = folder.file("a.rq.safetensors");
  fs::copy_file(reference(), alone);
  const Ended lost = run({kTool, "bench", alone, "--against", "float"});
  EXPECT_EQ(lost.exit, kUsage);
  expect_message(lost, "expected --float");
  // Beside the artifact, and without data.
  write_text(alone + ".run.json", R"({"model": {"file": "demo_vit.onnx", "path": "/nowhere"}})");
  expect_message(run({kTool, "bench", alone, "--against", "float"}), "is not where it was");
  fs::copy_file(kModel, folder.file("demo_vit.onnx"));
  const Ended beside =
      run({kTool, "bench", alone, "--against", "float", "--rounds", "1", "--json"});
  ASSERT_EQ(beside.exit, 0) << beside.err;
  EXPECT_EQ(beside.json()["result"]["data"], "random normal numbers");
}

// The torch-free program; a stand-in with a known time shows what the ratio is.
TEST_F(Bench, ContenderBehindAPipe) {
  const Folder folder;
  const Ended ended =
      run(with(fake(folder, "echo '{\"seconds\": 0.25}'"),
               bench(kRun, {"--against", "onnxruntime_fp32", "--float", kModel, "--json"})));
  ASSERT_EQ(ended.exit, 0) << ended.err;
  expect_schema(ended, "bench");
  const json result = ended.json()["result"];
  EXPECT_EQ(result["contenders"]["onnxruntime_fp32"]["median_ms"], 250.0);
  EXPECT_EQ(result["versions"]["onnxruntime"], "9.9");
  expect_ratio(result, "onnxruntime_fp32");
  EXPECT_TRUE(fs::is_empty(folder.file("tmp")));
}

TEST_F(Bench, MarkdownIsATable) {
  const Folder folder;
  const Ended ended = run(with(
      fake(folder, "echo '{\"seconds\": 0.25}'"),
      bench(kRun, {"--against", "onnxruntime_fp32", "--float", kModel, "--format", "markdown"})));
  ASSERT_EQ(ended.exit, 0) << ended.err;
  EXPECT_NE(ended.out.find("| contender | best ms | median ms |"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("\n| onnxruntime_fp32 | 250.000 | 250.000 |"), std::string::npos);
}

TEST_F(Bench, AContenderThatDiesIsReported) {
  const auto refused = [&](const std::string& answer, const std::string& how) {
    const Folder folder;
    const Ended ended =
        run(with(fake(folder, answer),
                 bench(kRun, {"--against", "onnxruntime_fp32", "--float", kModel, "-q"})));
    EXPECT_EQ(ended.exit, kUnsupported) << ended.err;
    expect_message(ended, "onnxruntime_fp32: the contender ended: " + how);
    EXPECT_TRUE(fs::is_empty(folder.file("tmp")));
    return ended.err;
  };
  const std::string said = refused("echo loading >&2; echo out of luck >&2; exit 3", "exit code 3");
  EXPECT_NE(said.find("it said: loading | out of luck"), std::string::npos) << said;
  refused("kill -9 $$", "signal 9");
}

TEST_F(Bench, WithoutPythonOrItsPackages) {
  const Folder folder;
  const auto words = bench(kRun, {"--against", "onnxruntime_fp32", "--float", kModel, "-q"});
  const Ended none = run(with({"REPQUANT_PYTHON=" + folder.file("none")}, words));
  EXPECT_EQ(none.exit, kUnsupported);
  expect_message(none, "no such program");
  write_text(folder.file("python"), "#!/bin/sh\nexec python3 -S \"$@\"\n");
  fs::permissions(folder.file("python"), fs::perms::owner_all);
  const Ended bare = run(with({"REPQUANT_PYTHON=" + folder.file("python")}, words));
  EXPECT_EQ(bare.exit, kUnsupported);
  expect_message(bare, "Python lacks ");
  EXPECT_NE(bare.err.find("pip install onnxruntime"), std::string::npos) << bare.err;
}

TEST_F(Bench, CtrlCEndsTheContenderToo) {
  const Folder folder;
  Process process(
      with(fake(folder, "echo '{\"seconds\": 0.25}'; sleep 0.05"),
           bench(kRun, {"--against", "onnxruntime_fp32", "--float", kModel}, "100000")));
  ASSERT_TRUE(process.wait_for("round 2/"));
  const pid_t child = std::stoi(read_text(folder.file("pid")));
  EXPECT_EQ(::kill(child, 0), 0);
  process.send(SIGINT);
  EXPECT_EQ(process.wait().exit, kInterrupted);
  EXPECT_EQ(::kill(child, 0), -1);
  EXPECT_EQ(errno, ESRCH);
  EXPECT_TRUE(fs::is_empty(folder.file("tmp")));
}

TEST_F(Bench, OnnxruntimeItself) {
  const fs::path own = fs::path(REPQUANT_SOURCE) / ".venv" / "bin" / "python";
  const std::string python = fs::exists(own) ? own.string() : "python3";
  if (run({"/usr/bin/env", python, "-c", "import onnx, onnxruntime"}).exit != 0)
    GTEST_SKIP() << "onnxruntime is not importable by " << python << ": its contenders did not run";
  const Folder cache;
  const auto measured = [&] {
    const Ended ended = run(with({"XDG_CACHE_HOME=" + cache.path().string()},
                                 bench(kRun, {"--against", "onnxruntime", "--json"})));
    EXPECT_EQ(ended.exit, 0) << ended.err;
    expect_schema(ended, "bench");
    return ended.json()["result"];
  };
  const json result = measured();
  ASSERT_EQ(result["ratios"].size(), 2u);
  for (const char* name : {"onnxruntime_fp32", "onnxruntime_int8"}) expect_ratio(result, name);
  const json& int8 = result["contenders"]["onnxruntime_int8"];
  EXPECT_GT(int8["sqnr_db"].get<double>(), 5);  // it is the model
  ASSERT_EQ(int8["variants"].size(), 4u) << int8;
  for (const json& variant : int8["variants"]) EXPECT_EQ(variant["cached"], false);
  const json again = measured()["contenders"]["onnxruntime_int8"];
  double fastest = 1e9;
  for (const json& variant : again["variants"]) {
    EXPECT_EQ(variant["cached"], true);
    fastest = std::min(fastest, variant["best_ms"].get<double>());
  }
  for (const json& variant : again["variants"]) {
    const bool chosen = variant["name"] == again["variant"];
    EXPECT_EQ(chosen, variant["best_ms"].get<double>() == fastest) << variant;
  }
  for (const auto& entry : fs::directory_iterator(cache.path() / "repquant" / "bench"))
    EXPECT_EQ(entry.path().filename().string().size(), 64u) << entry.path();
}

TEST_F(Bench, AWrongKernelIsNotTimed) {
  const json isas = run({kTool, "kernels", "--json"}).json()["result"]["isas"];
  if (std::none_of(isas.begin(), isas.end(), [](const json& row) {
        return row["available"] == true && row["isa"] != "scalar";
      }))
    GTEST_SKIP() << "this machine has scalar rows alone: nothing to compare them with";
  const std::vector<std::string> planted{"REPQUANT_WRONG_CONSTANT=head.c",
                                         "REPQUANT_RIGHT_ISA=scalar"};
  const auto words = bench(REPQUANT_WRONG, {"--data", other(), "--json"}, "1");
  EXPECT_EQ(run(words).exit, 0);
  const Ended ended = run(with(planted, words));
  EXPECT_EQ(ended.exit, kVerifyFailed) << ended.err;
  expect_schema(ended, "bench");
  EXPECT_EQ(ended.json()["error"]["code"], "verify_failed");
  EXPECT_EQ(ended.json()["result"]["verified"], false);
  EXPECT_FALSE(ended.json()["result"].contains("contenders"));
}

TEST_F(Bench, RefusesWhatItCannotRun) {
  const auto refuse = [&](const std::string& against, int exit, const std::string& part) {
    const Ended ended = run(bench(kTool, {"--against", against}));
    EXPECT_EQ(ended.exit, exit) << against;
    EXPECT_NE(ended.err.find(part), std::string::npos) << ended.err;
  };
  refuse("onnxruntim", kUsage, "unknown contender \"onnxruntim\"; nearest: onnxruntime");
  refuse("onednn", kUnsupported, "onednn: not a contender");
  refuse("threads:none", kUsage, "N of 1 to 1024");
  refuse("isa:mmx", kUnsupported, "instruction set \"mmx\"");
  refuse("artifact:/nowhere", kInput, "/nowhere");
  EXPECT_EQ(run({kTool, "bench", kModel}).exit, kUsage);
  EXPECT_EQ(run(bench(kRun, {"--against", "float", "--float", kModel})).exit, kUnsupported);
}

// ---- kernels ------------------------------------------------------------------------------------
TEST_F(Bench, KernelsListsEveryFamilyAndEveryStep) {
  const Ended ended = run({kRun, "kernels", reference(), "--json"});
  ASSERT_EQ(ended.exit, 0) << ended.err;
  expect_schema(ended, "kernels");
  const json result = ended.json()["result"];
  std::set<std::string> listed, folders, rows;
  for (const json& family : result["families"]) {
    listed.insert(family["family"].get<std::string>());
    EXPECT_EQ(family["rows"].back()["isa"], "scalar") << family;
    for (const json& row : family["rows"]) {
      EXPECT_EQ(row["available"].get<bool>(), row["missing"].get<std::string>().empty()) << row;
      if (row["available"] == true) rows.insert(row["kernel"].get<std::string>());
    }
  }
  for (const auto& entry :
       fs::directory_iterator(fs::path(REPQUANT_SOURCE) / "repquant" / "runtime" / "kernels")) {
    if (entry.is_directory()) folders.insert(entry.path().filename());
  }
  EXPECT_EQ(listed, folders) << "cli/kernels.cpp names the families";
  EXPECT_GT(result["steps"].size(), 50u);
  for (const json& step : result["steps"]) {
    EXPECT_EQ(step["packed_bytes"].get<int64_t>() > 0, step["op"] == "linear") << step;
    EXPECT_EQ(rows.count(step["kernel"].get<std::string>()), 1u) << step;
    EXPECT_NE(step["reason"], "no row of a table") << step;
    const bool scalar = step["kernel"].get<std::string>().ends_with("/scalar");
    EXPECT_EQ(step["reason"].get<std::string>().find("; gemv") != std::string::npos,
              step["step"] == "head" && !scalar)
        << step;
  }
}

// Products of a shape, then the forms of the other families: every row that runs here but scalar.
TEST_F(Bench, KernelsAreTimedAgainstWhatTheyAreHeldTo) {
  const auto timed = [&](const std::string& shapes) {
    const Ended ended = run(
        {kRun, "bench", "kernels", "--shapes", shapes, "--rounds", "1", "--window", "5", "--json"});
    EXPECT_EQ(ended.exit, 0) << ended.err;
    expect_schema(ended, "bench");
    return ended.json()["result"];
  };
  std::set<std::string> isas;
  const json levels = run({kRun, "kernels", "--json"}).json()["result"]["isas"];
  for (const json& row : levels) {
    if (row["available"] == true && row["isa"] != "scalar") isas.insert(row["isa"]);
  }
  const json products = timed("70,64,48");
  EXPECT_EQ(products["kernels"].size(), 2 * isas.size());  // 8 and 4 bits
  EXPECT_TRUE(products["forms"].empty());
  for (const json& row : products["kernels"]) {
    EXPECT_EQ(row["shape"], json({70, 64, 48}));
    EXPECT_GT(row["of_peak"].get<double>(), 0) << row;
    EXPECT_EQ(row.contains("floor"), row["isa"] == "avx512vnni" || row["isa"] == "amx") << row;
  }
  const json families = timed("families");
  EXPECT_TRUE(families["kernels"].empty());
  std::set<std::string> forms, seen;
  for (const json& row : families["forms"]) {
    const std::string kernel = row["kernel"];
    EXPECT_EQ(kernel.substr(kernel.find('/') + 1), row["isa"]) << row;
    EXPECT_GT(row["ns_per_element"].get<double>(), 0) << row;
    forms.insert(kernel.substr(0, kernel.find('/')));
    seen.insert(row["isa"]);
  }
  EXPECT_EQ(seen, isas);
  if (isas.empty()) return;
  EXPECT_EQ(forms, (std::set<std::string>{"activation", "attention_i8", "depthwise_i8",
                                          "elementwise", "gemm_i8", "matmul_f32", "norm",
                                          "softmax"}));
  EXPECT_EQ(run({kRun, "bench", "kernels", "--shapes", "70,64"}).exit, kUsage);
}

TEST_F(Bench, KernelsSaysWhatWasForced) {
  const json steps =
      run({kRun, "kernels", reference(), "--isa", "scalar", "--json"}).json()["result"]["steps"];
  for (const json& step : steps)
    EXPECT_TRUE(step["kernel"].get<std::string>().ends_with("/scalar")) << step;
  const json free = run({kRun, "kernels", "--json"}).json()["result"];
  if (free["isa"] != "scalar") {
    EXPECT_TRUE(std::any_of(steps.begin(), steps.end(), [](const json& step) {
      return step["reason"] == "best row within scalar, which was asked for";
    }));
  }
  EXPECT_EQ(run({kRun, "kernels", kModel}).exit, kUnsupported);
  EXPECT_EQ(run({kTool, "kernels", kModel}).exit, kUsage);
}

}  // namespace
}  // namespace repquant::cli
