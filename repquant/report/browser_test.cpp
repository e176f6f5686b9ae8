// The report in a real browser: nothing is logged, every chart has a box, every cell shows the
// record's number, and no width from 400 to 1600 pixels makes the page scroll sideways.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/report/html.h"
#include "repquant/report/testing.h"

namespace repquant::report {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string find_browser() {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
      if (fs::exists(fs::path(folder) / name)) return (fs::path(folder) / name).string();
    }
  }
  return {};
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "repquant-report-XXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

// The report, unchanged, in one frame a width; the outer page measures and writes what it found.
std::string checker_page(const std::string& report) {
  std::string page =
      "<!DOCTYPE html><meta charset=\"utf-8\"><title>check</title><link rel=\"icon\" "
      "href=\"data:,\">";
  for (const int width : {400, 900, 1600}) {
    page += fmt::format("<iframe width=\"{}\" height=\"900\" srcdoc=\"{}\"></iframe>", width,
                        escape_html(report));
  }
  return page + R"js(<pre id="found"></pre><script>
addEventListener("load", () => {
  console.error("probe");
  const box = e => e.getBoundingClientRect();
  const frames = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument;
    const svgs = [...page.querySelectorAll("svg")];
    return {
      width: frame.clientWidth,
      scroll: page.documentElement.scrollWidth,
      charts: svgs.length,
      empty: svgs.filter(s => !(box(s).width > 1 && box(s).height > 1)).length,
      outside: [...page.querySelectorAll("svg, svg text, svg rect")].filter(s => {
        const around = box(s.closest("section"));
        return box(s).right > around.right || box(s).left < around.left;
      }).length,
      overlaps: [...page.querySelectorAll("svg.plotted .value")].filter(v =>
        [...v.closest("svg").querySelectorAll("rect, line, .label")].some(r =>
          box(r).right > box(v).left && box(r).left < box(v).right &&
          box(r).bottom > box(v).top + 3 && box(r).top < box(v).bottom - 3)).length,
      bars: [...page.querySelectorAll("svg .after, svg .code")]
        .filter(s => !(box(s).width > 0 && box(s).height > 0)).length,
      letters: Math.min(...[...page.querySelectorAll("svg text")].map(t => box(t).height)),
      notes: page.querySelectorAll(".note").length,
      unheaded: [...page.querySelectorAll("table")]
        .filter(t => !t.querySelector("th[scope=col]") || !t.caption).length,
      cells: [...page.querySelectorAll("[data-key]")]
        .map(c => [c.dataset.key, c.dataset.value, c.textContent]),
      title: page.title
    };
  });
  const text = btoa(unescape(encodeURIComponent(JSON.stringify(frames))));
  document.getElementById("found").textContent = "FOUND" + text + "DNUOF";
});
</script>)js";
}

std::string decode_base64(const std::string& text) {
  static const std::string kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  unsigned bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string::npos) break;
    bits = bits << 6 | static_cast<unsigned>(digit);
    count += 6;
    if (count >= 8) out += static_cast<char>(bits >> (count -= 8) & 0xFF);
  }
  return out;
}

class Browser : public ::testing::Test {
 protected:
  void SetUp() override {
    browser_ = find_browser();
    if (browser_.empty())
      GTEST_SKIP() << "chromium missing: the report was not opened in a browser";
    ASSERT_FALSE(folder_.path.empty());
  }

  json open(const std::string& report) {
    const fs::path page = folder_.path / "check.html", dom = folder_.path / "dom",
                   log = folder_.path / "log";
    std::ofstream(page) << checker_page(report);
    const std::string command = fmt::format(
        "HOME='{0}' timeout 200 '{1}' --headless=new --no-sandbox --disable-gpu "
        "--disable-dev-shm-usage --no-first-run "
        "--user-data-dir='{0}/profile' --virtual-time-budget=3000 --enable-logging=stderr --v=0 "
        "--dump-dom 'file://{2}' "
        "> '{3}' 2> '{4}'",
        folder_.path.string(), browser_, page.string(), dom.string(), log.string());
    EXPECT_EQ(std::system(command.c_str()), 0) << read_text(log);
    log_ = read_text(log);
    const std::string text = read_text(dom);
    const size_t from = text.find("<pre id=\"found\">FOUND");
    if (from == std::string::npos) return {};
    const size_t first = from + std::string("<pre id=\"found\">FOUND").size();
    return json::parse(decode_base64(text.substr(first, text.find("DNUOF", first) - first)));
  }

  // Lines the page logged, the checker's own among them.
  std::vector<std::string> console() const {
    std::vector<std::string> lines;
    std::istringstream all(log_);
    for (std::string line; std::getline(all, line);) {
      if (line.find("CONSOLE") != std::string::npos) lines.push_back(line);
    }
    return lines;
  }

  Folder folder_;
  std::string browser_, log_;
};

TEST_F(Browser, ReportIsSound) {
  json record = example_record();
  record["layers"][0]["layer"] = "</svg><script>console.error('hostile')</script><img src=x>";
  const json frames = open(html_report(record));
  ASSERT_EQ(frames.size(), 3u) << log_;
  ASSERT_EQ(console().size(), 1u) << log_;  // that errors would be seen at all
  EXPECT_THAT(console()[0], ::testing::HasSubstr("probe"));
  for (const json& frame : frames) {
    SCOPED_TRACE(frame["width"].dump());
    EXPECT_EQ(frame["title"], record["title"]);
    EXPECT_GT(frame["charts"].get<int>(), 100);
    EXPECT_EQ(frame["empty"], 0);
    EXPECT_EQ(frame["outside"], 0);   // of its section
    EXPECT_EQ(frame["overlaps"], 0);  // figures beside the bars stay readable
    EXPECT_EQ(frame["bars"], 0);
    EXPECT_EQ(frame["notes"], 0);
    EXPECT_EQ(frame["unheaded"], 0);
    EXPECT_LE(frame["scroll"].get<int>(), frame["width"].get<int>());
    EXPECT_GE(frame["letters"].get<double>(), 9.0);  // pixels: never scaled down
    EXPECT_GT(frame["cells"].size(), 300u);
    for (const json& cell : frame["cells"]) {
      const double value = record.at(json::json_pointer(cell[0].get<std::string>())).get<double>();
      EXPECT_EQ(std::stod(cell[1].get<std::string>()), value) << cell;
      if (cell[0].get<std::string>().find("sqnr_db") == std::string::npos) continue;
      EXPECT_EQ(cell[2].get<std::string>(), fmt::format("{:.2f}", value)) << cell;
    }
  }
}

}  // namespace
}  // namespace repquant::report
