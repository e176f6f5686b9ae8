#pragma once
// A report in a real browser, for tests: nothing is logged, every chart has a box with something in
// it, every cell shows the record's number, and no width from 400 to 1600 pixels makes the page
// scroll sideways.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "repquant/report/html.h"

namespace repquant::testing {

namespace fs = std::filesystem;

inline std::string find_browser() {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
      if (fs::exists(fs::path(folder) / name)) return (fs::path(folder) / name).string();
    }
  }
  return {};
}

inline std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct TemporaryFolder {
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "repquant-report-XXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

// The report, unchanged, in one frame a width; the outer page measures and writes what it found.
inline std::string checker_page(const std::string& html) {
  std::string page =
      "<!DOCTYPE html><meta charset=\"utf-8\"><title>check</title><link rel=\"icon\" "
      "href=\"data:,\">";
  for (const int width : {400, 900, 1600}) {
    page += fmt::format("<iframe width=\"{}\" height=\"900\" srcdoc=\"{}\"></iframe>", width,
                        report::escape_html(html));
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
      blank: [...page.querySelectorAll("svg.chart")].filter(s =>
        ![...s.querySelectorAll(".dot, .before, .after, .code, .range-before, .range-folded")]
          .some(m => box(m).width > 0 && box(m).height > 0)).length,
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

inline std::string decode_base64(const std::string& text) {
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

// What the page showed, by width; log(): what the browser wrote.
class BrowserTest : public ::testing::Test {
 protected:
  void SetUp() override {
    browser_ = find_browser();
    if (browser_.empty())
      GTEST_SKIP() << "chromium missing: the report was not opened in a browser";
    ASSERT_FALSE(folder_.path.empty());
  }

  nlohmann::json open(const std::string& html) {
    const fs::path page = folder_.path / "check.html", dom = folder_.path / "dom",
                   log = folder_.path / "log";
    std::ofstream(page) << checker_page(html);
    const std::string command = fmt::format(
        "HOME='{0}' timeout 200 '{1}' --headless=new --no-sandbox --disable-gpu "
        "--disable-dev-shm-usage --no-first-run "
        "--user-data-dir='{0}/profile' --virtual-time-budget=3000 --enable-logging=stderr --v=0 "
        "--dump-dom 'file://{2}' "
        "> '{3}' 2> '{4}'",
        folder_.path.string(), browser_, page.string(), dom.string(), log.string());
    EXPECT_EQ(std::system(command.c_str()), 0) << read_text(log);
    log_ = read_text(log);
    const std::string text = read_text(dom), mark = "<pre id=\"found\">FOUND";
    const size_t from = text.find(mark);
    if (from == std::string::npos) return {};
    const size_t first = from + mark.size();
    return nlohmann::json::parse(
        decode_base64(text.substr(first, text.find("DNUOF", first) - first)));
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

  // The number a cell shows, and half a unit of its last digit.
  static std::pair<double, double> shown(const std::string& text) {
    size_t end = 0;
    const double number = std::stod(text, &end);
    const std::string digits = text.substr(0, end), unit = text.substr(end);
    const double factor = unit == " KB" ? 1e3 : unit == " MB" ? 1e6 : unit == " GB" ? 1e9 : 1;
    EXPECT_TRUE(unit.empty() || unit == " B" || factor > 1) << text;
    const size_t exponent = digits.find('e'), point = digits.find('.');
    const int power = exponent == std::string::npos ? 0 : std::stoi(digits.substr(exponent + 1));
    const size_t last = exponent == std::string::npos ? digits.size() : exponent;
    const int decimals = point == std::string::npos ? 0 : static_cast<int>(last - point - 1);
    return {number * factor, 0.5 * factor * std::pow(10.0, power - decimals)};
  }

  static void expect_cells(const nlohmann::json& cells, const nlohmann::json& record) {
    std::set<std::string> seen;
    for (const nlohmann::json& cell : cells) {
      const std::string key = cell.at(0).get<std::string>();
      seen.insert(key);
      const double value = record.at(nlohmann::json::json_pointer(key)).get<double>();
      EXPECT_EQ(std::stod(cell.at(1).get<std::string>()), value) << cell;
      const auto [number, half] = shown(cell.at(2).get<std::string>());
      EXPECT_NEAR(number, value, half * (1 + 1e-9) + 1e-12 * std::abs(value)) << cell;
    }
    // Nothing measured of a layer is left out.
    const auto expect_layers = [&](const nlohmann::json& run, const std::string& pointer) {
      for (size_t i = 0; run.contains("layers") && i < run["layers"].size(); ++i) {
        for (const auto& [key, value] : run["layers"][i].items()) {
          const std::string place = fmt::format("{}/layers/{}/{}", pointer, i, key);
          EXPECT_EQ(seen.contains(place), value.is_number()) << place;
        }
      }
    };
    expect_layers(record, "");
    for (size_t i = 0; record.contains("runs") && i < record["runs"].size(); ++i)
      expect_layers(record["runs"][i], fmt::format("/runs/{}", i));
  }

  // Opens the report of `record`; at least that many charts and cells must be there.
  void expect_sound(const nlohmann::json& record, int charts, size_t cells) {
    const nlohmann::json frames = open(html_report(record));
    ASSERT_EQ(frames.size(), 3u) << log_;
    ASSERT_EQ(console().size(), 1u) << log_;  // that errors would be seen at all
    EXPECT_NE(console()[0].find("probe"), std::string::npos) << console()[0];
    for (const nlohmann::json& frame : frames) {
      SCOPED_TRACE(frame["width"].dump());
      EXPECT_EQ(frame["title"], record["title"]);
      EXPECT_GE(frame["charts"].get<int>(), charts);
      EXPECT_EQ(frame["empty"], 0);
      EXPECT_EQ(frame["blank"], 0);     // a box with nothing drawn in it
      EXPECT_EQ(frame["outside"], 0);   // of its section
      EXPECT_EQ(frame["overlaps"], 0);  // figures beside the bars stay readable
      EXPECT_EQ(frame["bars"], 0);
      EXPECT_EQ(frame["notes"], 0);
      EXPECT_EQ(frame["unheaded"], 0);
      EXPECT_LE(frame["scroll"].get<int>(), frame["width"].get<int>());
      EXPECT_GE(frame["letters"].get<double>(), 9.0);  // pixels: never scaled down
      EXPECT_GE(frame["cells"].size(), cells);
      expect_cells(frame["cells"], record);
    }
  }

  TemporaryFolder folder_;
  std::string browser_, log_;
};

}  // namespace repquant::testing
