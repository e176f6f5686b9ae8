// What docs/cli.md promises: help, options, JSON, recipes, memory, exit code 8, rotated models.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <regex>
#include <set>

#include "cli/testing_demo.h"

namespace repquant::cli {
namespace {

using namespace testing;

const std::vector<std::string> kVerbs{"quantize", "eval",    "verify",    "run",     "bench",
                                      "inspect",  "compare", "report",    "methods", "kernels",
                                      "explain",  "doctor",  "completion"};

std::string page() { return read_text(fs::path(REPQUANT_SOURCE) / "docs" / "cli.md"); }

class Contract : public Demo {};

// ---- help ---------------------------------------------------------------------------------------
// REPQUANT_UPDATE_GOLDEN=1 writes the files anew.
TEST(Help, IsAsItWas) {
  const fs::path folder = fs::path(REPQUANT_SOURCE) / "tests" / "golden" / "help";
  const auto compare = [&](const std::string& name, const std::vector<std::string>& words) {
    const Ended ended = run(words);
    EXPECT_EQ(ended.exit, 0) << name;
    EXPECT_EQ(ended.err, "") << name;
    const fs::path path = folder / (name + ".txt");
    if (std::getenv("REPQUANT_UPDATE_GOLDEN") != nullptr) write_text(path, ended.out);
    EXPECT_EQ(ended.out, read_text(path)) << "REPQUANT_UPDATE_GOLDEN=1 accepts it";
    for (std::istringstream lines(ended.out); !lines.eof();) {
      std::string line;
      std::getline(lines, line);
      EXPECT_LE(line.size(), 110u) << name << ": " << line;
    }
  };
  for (const std::string& verb : kVerbs) compare(verb, {kTool, verb, "--help-all"});
  // The version is in the first line of the overview.
  const Ended overview = run({kTool});
  for (const std::string& verb : kVerbs)
    EXPECT_NE(overview.out.find("\n  " + verb + " "), std::string::npos) << verb;
}

TEST(Help, OfEveryVerbFitsOneScreen) {
  for (const std::string& verb : kVerbs) {
    const Ended ended = run({kTool, verb, "--help"});
    EXPECT_EQ(ended.exit, 0) << verb;
    EXPECT_LE(std::count(ended.out.begin(), ended.out.end(), '\n'), 42) << ended.out;
  }
}

std::set<std::string> options_in(const std::string& text) {
  static const std::regex option("(^|[^A-Za-z0-9-])(--[a-z][a-z0-9-]*)");
  std::set<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), option), end; it != end; ++it)
    found.insert((*it)[2]);
  return found;
}

// The row of a verb (or of "every verb") in the table of options.
std::set<std::string> documented(const std::string& row) {
  const std::string text = page();
  const size_t table = text.find("\n## Options\n");
  const size_t begin = text.find("\n| " + row + " |", table);
  if (table == std::string::npos || begin == std::string::npos) {
    ADD_FAILURE() << row;
    return {};
  }
  return options_in(text.substr(begin, text.find('\n', begin + 1) - begin));
}

std::set<std::string> option_names(const std::string& help) {
  std::set<std::string> names;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("  -", 0) != 0) continue;
    names.merge(options_in(line.substr(0, line.find("  ", 3))));
  }
  return names;
}

TEST(Help, NamesTheOptionsOfThePage) {
  const std::set<std::string> common = documented("every verb");
  EXPECT_GE(common.size(), 9u);
  for (const std::string& verb : kVerbs) {
    std::set<std::string> wanted = documented("`" + verb + "`");
    wanted.insert(common.begin(), common.end());
    EXPECT_EQ(option_names(run({kTool, verb, "--help-all"}).out), wanted) << verb;
  }
}

// ---- JSON ---------------------------------------------------------------------------------------
TEST(Json, UsageErrorsAreDocumentsToo) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> calls{
      {{kTool, "quantise", "--json"}, "unknown verb \"quantise\"; nearest: quantize"},
      {{kTool, "--json"}, "expected a verb"},
      {{kTool, "eval", "--jsn", "--json"}, "unknown option \"--jsn\"; nearest: --json"},
      {{kTool, "--json", "quantize", "m.onnx", "--samples", "many"}, "many"},
      {{kTool, "eval", "--json"}, "model"},
      {{kRun, "--json", "evil"}, "nearest: eval"}};
  for (const auto& [words, part] : calls) {
    const Ended ended = run(words);
    EXPECT_EQ(ended.exit, kUsage) << part;
    const nlohmann::json document = ended.json();
    ASSERT_TRUE(document.is_object()) << part << ended.out;
    EXPECT_EQ(document["schema"], "repquant/1");
    EXPECT_EQ(document["ok"], false);
    const nlohmann::json& error = document["error"];
    EXPECT_EQ(error["code"], "invalid_argument") << part;
    EXPECT_EQ(error["exit"], kUsage) << part;
    EXPECT_EQ(error["stage"], "usage") << part;
    EXPECT_EQ(error["subject"].get<std::string>().find("; nearest"), std::string::npos) << error;
    EXPECT_NE(error["message"].get<std::string>().find(part), std::string::npos) << error;
    EXPECT_NE(ended.err.find(part), std::string::npos) << ended.err;
  }
  const Ended full_only = run({kRun, "quantize", "--json"});
  EXPECT_EQ(full_only.exit, kUnsupported);
  EXPECT_EQ(full_only.json()["error"]["code"], "unsupported");
  EXPECT_EQ(full_only.json()["verb"], "quantize");
  // Behind "--" it is no option.
  EXPECT_EQ(run({kTool, "inspect", "--", "--json"}).out, "");
}

TEST(Json, TheSubjectOfAnErrorIsTheNameItself) {
  const auto error = [](const std::vector<std::string>& words) {
    return run(words).json()["error"];
  };
  EXPECT_EQ(error({kTool, "inspect", "/no such: file", "--json"})["subject"], "/no such: file");
  EXPECT_EQ(error({kTool, "quantise", "--json"})["subject"], "quantise");
  const Folder folder;
  write_text(folder.file("a.json"), "[]");
  const nlohmann::json damaged = error({kTool, "report", folder.file("a.json"), "--json"});
  EXPECT_EQ(damaged["stage"], "report");
  EXPECT_EQ(damaged["subject"], folder.file("a.json"));
}

TEST_F(Contract, ReportsAreOfRunRecords) {
  const Ended page = run({kTool, "report", reference(), "--format", "html"});
  const Folder folder;
  const Ended dash = run({"/bin/sh", "-c",
                          "cd '" + folder.path().string() + "' && '" + kTool + "' report '" +
                              reference() + "' --format html -o -"});
  EXPECT_EQ(dash.exit, kDone) << dash.err;
  EXPECT_EQ(dash.out, page.out);
  EXPECT_TRUE(folder.names().empty()) << folder.names()[0];
  for (const char* text : {"{}", "[]", "{\"name\": \"package\", \"layers\": 3}"}) {
    write_text(folder.file("any.json"), text);
    const Ended ended = run({kTool, "report", folder.file("any.json")});
    EXPECT_EQ(ended.exit, kInput) << text;
    expect_message(ended, "any.json\": expected a run record, got other JSON");
  }
  const Ended format = run({kTool, "report", reference(), "--format", "xml"});
  EXPECT_EQ(format.exit, kUsage);
  expect_message(format, "usage: --format: unknown value \"xml\"");
}

TEST_F(Contract, AMissedGateIsAnErrorWithItsResult) {
  const Ended ended = run(eval(reference(), {"--min", "top1=100.5", "--json"}));
  EXPECT_EQ(ended.exit, kQuality);
  expect_schema(ended, "eval");
  EXPECT_EQ(ended.json()["ok"], false);
  EXPECT_EQ(ended.json()["error"]["exit"], kQuality);
  EXPECT_EQ(ended.json()["result"]["count"], 6);
  EXPECT_NE(ended.err.find("error: eval: top1: expected at least 100.5"), std::string::npos);
}

TEST_F(Contract, AGateThatCannotBeJudgedIsAUsageError) {
  const auto refuse = [](std::vector<std::string> words, const std::string& part) {
    const Ended ended = run(words);
    EXPECT_EQ(ended.exit, kUsage) << part;
    EXPECT_NE(ended.err.find(part), std::string::npos) << ended.err;
    EXPECT_EQ(ended.err.find("score artifact"), std::string::npos) << "scored first";
  };
  refuse(eval(reference(), {"--min", "top1=5x"}), "expected METRIC=VALUE");
  refuse(eval(reference(), {"--min", "top1=nan"}), "expected METRIC=VALUE");
  refuse(eval(reference(), {"--min", "top1"}), "expected METRIC=VALUE");
  refuse(eval(reference(), {"--min", "kl=0.1", "--baseline", kModel}), "unknown metric \"kl\"");
  refuse(eval(reference(), {"--min", "agreement=90"}), "agreement: expected a baseline");
  refuse(eval(reference(), {"--metric", "top1,kl"}), "kl: expected a baseline");
  refuse({kTool, "eval", reference(), "--data", other(), "--baseline", kModel, "--metric", "top5"},
         "top5: expected labels");
}

// ---- verify -------------------------------------------------------------------------------------
std::vector<std::string> wrong(const std::string& constant, std::vector<std::string> words) {
  words[0] = REPQUANT_WRONG;
  words.insert(words.begin(), {"/usr/bin/env", "REPQUANT_WRONG_CONSTANT=" + constant});
  return words;
}

TEST_F(Contract, VerifySeesAKernelWithAConstantOneOff) {
  const std::vector<std::string> words{kTool,   "verify",    reference(), "--data",
                                       other(), "--samples", "1",         "--json"};
  EXPECT_EQ(run(wrong("", words)).exit, 0);  // the program itself is right
  for (const char* step : {"patch_embed", "blocks.1.attn.proj", "blocks.4.mlp.fc2", "head"}) {
    const Ended ended = run(wrong(std::string(step) + ".c", words));
    EXPECT_EQ(ended.exit, kVerifyFailed) << step << ended.err;
    expect_schema(ended, "verify");
    const nlohmann::json document = ended.json();
    EXPECT_EQ(document["ok"], false);
    EXPECT_EQ(document["error"]["code"], "verify_failed");
    EXPECT_EQ(document["error"]["exit"], kVerifyFailed);
    EXPECT_EQ(document["result"]["equal"], false);
    EXPECT_EQ(document["result"]["step"], step);
    EXPECT_NE(document["result"]["simulated"], document["result"]["executed"]);
  }
  const Ended people = run(wrong("head.c", {kTool, "verify", reference(), "--data", other()}));
  EXPECT_EQ(people.exit, kVerifyFailed);
  expect_message(people, "verify: step \"head\": item 0, element 0: expected ");
}

TEST_F(Contract, TheMatrixSeesARowThatDiffers) {
  const std::vector<std::string> words{kTool,   "verify",   reference(), "--data",
                                       other(), "--isa",    "scalar",    "--samples",
                                       "1",     "--matrix", "short",     "--json"};
  const Ended right = run(words);
  ASSERT_EQ(right.exit, 0) << right.err;
  if (right.json()["result"]["matrix"]["isas"].size() == 1) GTEST_SKIP() << "one instruction set";
  std::vector<std::string> spared = wrong("head.c", words);
  spared.insert(spared.begin() + 1, "REPQUANT_RIGHT_ISA=scalar");
  const Ended ended = run(spared);
  EXPECT_EQ(ended.exit, kVerifyFailed) << ended.err;
  expect_schema(ended, "verify");
  EXPECT_EQ(ended.json()["result"]["equal"], false);
  EXPECT_NE(ended.err.find("1 threads, batch 1: item 0, output element 0"), std::string::npos);
}

TEST_F(Contract, QuantizeDoesNotWriteWhatDoesNotVerify) {
  const Folder folder;
  const Ended ended = run(wrong("blocks.1.attn.proj.c", command(folder.file("a.rq.safetensors"))));
  EXPECT_EQ(ended.exit, kVerifyFailed) << ended.err;
  expect_message(ended, "verify: step \"blocks.1.attn.proj\"");
  EXPECT_TRUE(folder.names().empty());
}

// ---- recipes ------------------------------------------------------------------------------------
TEST_F(Contract, TheRecipeOfThePageIsOne) {
  const std::string text = page();
  const size_t begin = text.find("```toml\n") + 8;
  const Folder folder;
  write_text(folder.file("r.toml"), text.substr(begin, text.find("```", begin) - begin));
  const Ended ended = run({kTool, "quantize", kModel, "--data", data(), "--recipe",
                           folder.file("r.toml"), "--dry-run", "--json"});
  ASSERT_EQ(ended.exit, 0) << ended.err;
  const nlohmann::json plan = ended.json()["result"], recipe = plan["recipe"];
  EXPECT_EQ(recipe["scheme"], "w4a4");
  EXPECT_EQ(recipe["pass"][0]["method"], "repquant");
  ASSERT_EQ(recipe["layer"].size(), 1u);
  int eights = 0;
  for (const auto& row : plan["layers"])
    eights +=
        row["layer"].get<std::string>().rfind("blocks.0.", 0) == 0 && row["activation_bits"] == 8
            ? 1
            : 0;
  EXPECT_GE(eights, 4);
}

// ---- memory -------------------------------------------------------------------------------------
TEST_F(Contract, MemoryIsRefusedBeforeAndHeldAfterTheStart) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  const Ended refused = run(command(out, {"--memory", "20MiB", "--threads", "1"}));
  EXPECT_EQ(refused.exit, kCapacity) << refused.err;
  expect_message(refused, "expected a cap of at least ");
  EXPECT_EQ(refused.err.find("block "), std::string::npos);
  EXPECT_TRUE(folder.names().empty());
  std::smatch smallest;
  ASSERT_TRUE(std::regex_search(refused.err, smallest, std::regex("--memory (\\d+)MiB")));
  const uint64_t cap = std::stoull(smallest[1]) << 20;
  EXPECT_LE(cap, uint64_t{256} << 20);
  const Ended held =
      run(command(out, {"--memory", smallest[1].str() + "MiB", "--threads", "1", "--json"}));
  ASSERT_EQ(held.exit, 0) << held.err;
#if !defined(__SANITIZE_ADDRESS__)
  EXPECT_LE(held.json()["result"]["peak_memory_bytes"].get<uint64_t>(), cap);
#endif
  EXPECT_EQ(read_text(out), read_text(reference()));
  EXPECT_EQ(run(command(out, {"--memory", "lots"})).exit, kUsage);
  EXPECT_EQ(run(command(out, {"--memory", "90%", "--dry-run"})).exit, 0);
}

// ---- compare ------------------------------------------------------------------------------------
TEST_F(Contract, CompareLeavesOutWhatARotationChanged) {
  const Folder folder;
  const std::string out =
      folder.file("a.rq.safetensors");  // its layers in front of GELU are floats
  ASSERT_EQ(run(command(out, {"--set", "repquant.gelu_table=off"})).exit, 0);
  const auto compare = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words{kTool,    "compare", kModel,      out,
                                   "--data", other(),   "--samples", "2"};
    words.insert(words.end(), more.begin(), more.end());
    return run(words);
  };
  const Ended ended = compare({"--json"});
  ASSERT_EQ(ended.exit, 0) << ended.err;
  expect_schema(ended, "compare");
  const nlohmann::json result = ended.json()["result"];
  const auto skipped = result["rotated"].get<std::set<std::string>>();
  for (const char* name : {"patch_embed", "blocks.0.attn.proj", "blocks.5.mlp.fc2"})
    EXPECT_EQ(skipped.count(name), 1u) << name;
  EXPECT_EQ(skipped.count("blocks.0.mlp.fc1") + skipped.count("head"), 0u);
  std::set<std::string> names;
  for (const auto& row : result["layers"]) {
    names.insert(row["layer"].get<std::string>());
    // What is compared is alike: four bits, not another basis.
    EXPECT_GT(row["cosine"].get<double>(), 0.5) << row;
    EXPECT_EQ(skipped.count(row["layer"].get<std::string>()), 0u);
  }
  EXPECT_EQ(names.count("head"), 1u);
  EXPECT_EQ(names.count("blocks.3.mlp.fc1"), 1u);
  EXPECT_NE(compare({}).out.find("not compared: an offline rotation"), std::string::npos);
  EXPECT_EQ(compare({"--min-sqnr", "60"}).exit, kQuality);
  ASSERT_EQ(compare({"--html", folder.file("c.html")}).exit, 0);
  EXPECT_NE(read_text(folder.file("c.html")).find("<td>blocks.3.mlp.fc1</td>"), std::string::npos);
}

// Without a rotation every float layer counts, with its own part where the step adds a residual.
TEST_F(Contract, CompareOfAModelThatWasNotRotated) {
  const Folder folder;
  const std::string out = folder.file("a.rq.safetensors");
  ASSERT_EQ(run({kTool, "quantize", kModel, "-o", out, "--data", data(), "--preset",
                 "round_to_nearest_w8a8", "--samples", "8"})
                .exit,
            0);
  const Ended ended =
      run({kTool, "compare", kModel, out, "--data", other(), "--samples", "2", "--json"});
  ASSERT_EQ(ended.exit, 0) << ended.err;
  const nlohmann::json result = ended.json()["result"];
  EXPECT_TRUE(result["rotated"].empty());
  std::set<std::string> names;
  for (const auto& row : result["layers"]) {
    names.insert(row["layer"].get<std::string>());
    EXPECT_GT(row["sqnr_db"].get<double>(), 10) << row;
  }
  for (const char* name : {"blocks.0.attn.proj", "blocks.5.mlp.fc2", "head"})
    EXPECT_EQ(names.count(name), 1u) << name;
}

}  // namespace
}  // namespace repquant::cli
