#include "repquant/report/html.h"

#include <algorithm>
#include <map>
#include <regex>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "repquant/report/charts.h"
#include "repquant/report/record.h"
#include "repquant/report/table.h"
#include "repquant/report/testing.h"

namespace repquant::report {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

size_t occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Every tag is closed in order: what a hostile name would break first.
void expect_balanced(const std::string& html) {
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = html.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" >"));
    if (name == "!DOCTYPE" || name == "meta" || name == "link" || name == "wbr" ||
        tag.ends_with('/'))
      continue;
    if (name[0] != '/') {
      open.push_back("/" + name);
      continue;
    }
    ASSERT_FALSE(open.empty()) << name;
    ASSERT_EQ(open.back(), name) << html.substr(at > 200 ? at - 200 : 0, 300);
    open.pop_back();
  }
  EXPECT_TRUE(open.empty());
}

TEST(EscapeHtml, MarkupAndControlCharacters) {
  EXPECT_EQ(escape_html("a<b>&\"c'\x01\x7f"), "a&lt;b&gt;&amp;&quot;c&#39;\uFFFD\uFFFD");
  EXPECT_EQ(escape_html("é\n"), "é\n");
}

TEST(Shortened, KeepsBothEndsAndWholeCharacters) {
  EXPECT_EQ(shortened("blocks.0.fc1", 20), "blocks.0.fc1");
  EXPECT_EQ(shortened("abcdefghijklmnop", 9), "abcd\u2026mnop");
  const std::string cut = shortened("ééééééééééé", 8);  // two bytes each
  EXPECT_EQ(cut, "éé\u2026é");
}

TEST(HtmlReport, TableCellsEqualTheRecord) {
  const json record = example_record();
  const std::string html = html_report(record);
  static const std::regex kFigure(
      "<span data-value=\"([^\"]*)\" data-key=\"([^\"]*)\">([^<]*)</span>");
  std::map<std::string, std::string> shown;
  for (std::sregex_iterator it(html.begin(), html.end(), kFigure), end; it != end; ++it) {
    const json& value = record.at(json::json_pointer((*it)[2].str()));
    EXPECT_EQ(std::stod((*it)[1].str()), value.get<double>()) << (*it)[2];
    shown[(*it)[2]] = (*it)[3];
  }
  EXPECT_EQ(shown.at("/rows/0/top1"), "80.46");
  EXPECT_EQ(shown.at("/rows/2/delta_ci_low"), "-5.71");
  EXPECT_EQ(shown.at("/rows/0/count"), "650");
  EXPECT_EQ(shown.at("/rows/2/bytes"), "3.41 MB");
  // Every number of the table's parts is shown, null ones are not.
  for (const char* part : {"rows", "layers"}) {
    for (size_t i = 0; i < record[part].size(); ++i) {
      for (const auto& [key, value] : record[part][i].items()) {
        const std::string pointer = fmt::format("/{}/{}/{}", part, i, key);
        EXPECT_EQ(shown.contains(pointer), value.is_number()) << pointer;
      }
    }
  }
}

TEST(HtmlReport, EveryChartIsThereAndDescribed) {
  const json record = example_record();
  const std::string html = html_report(record);
  const size_t charts = occurrences(html, "<svg class=\"chart");
  const size_t expected = 2 + 2 * record["channel_ranges"].size() +
                          record["weight_histograms"].size() +
                          record["softmax_code_histograms"].size();
  EXPECT_EQ(charts, expected);
  EXPECT_EQ(occurrences(html, "<desc>"), charts);
  EXPECT_EQ(occurrences(html, "class=\"note\""), 0u);
  expect_balanced(html);
}

TEST(HtmlReport, LoadsNothing) {
  const std::string html = html_report(example_record());
  for (const char* part : {"http", "<script", "url(", "@import", " src=", "<iframe", "<object"}) {
    EXPECT_EQ(occurrences(html, part), 0u) << part;
  }
  EXPECT_EQ(occurrences(html, " href=\"") - occurrences(html, " href=\"#"), 1u);  // the empty icon
  EXPECT_FALSE(std::regex_search(html, std::regex(" on[a-z]+=")));
}

TEST(HtmlReport, MissingPartsAreNoted) {
  for (const json& record :
       {json::object(), json(), json(3), json::array(),
        json{{"rows", "x"}, {"layers", 3}, {"measurements", {1, "x"}}, {"title", 7}}}) {
    const std::string html = html_report(record);
    EXPECT_EQ(occurrences(html, "<svg"), 0u);
    for (const char* part : {"No scores", "No layer-wise error", "No channel ranges",
                             "No weight codes", "No softmax codes", "No provenance"}) {
      EXPECT_THAT(html, HasSubstr(part));
    }
    expect_balanced(html);
    EXPECT_THAT(markdown_report(record), HasSubstr("No scores"));
  }
}

// One kind of part at a time: present, and the others noted.
TEST(HtmlReport, PartsAreIndependent) {
  const json whole = example_record();
  for (const char* part :
       {"rows", "layers", "channel_ranges", "weight_histograms", "softmax_code_histograms"}) {
    const std::string html = html_report(json{{part, whole[part]}});
    EXPECT_GE(occurrences(html, "<svg"), 1u) << part;
    EXPECT_EQ(occurrences(html, "class=\"note\""), 5u) << part;
    expect_balanced(html);
  }
}

TEST(HtmlReport, HostileNamesStayText) {
  const std::string evil = "</title><script>alert(1)</script><b a=\"'&";
  json record = example_record();
  record["title"] = evil;
  record["rows"][0]["name"] = evil;
  record["rows"][0]["scheme"] = evil;
  record["layers"][0]["layer"] = evil;
  record["layers"][0]["kind"] = evil;
  record["channel_ranges"][0]["norm"] = evil;
  record["weight_histograms"][0]["layer"] = evil;
  record["softmax_code_histograms"][0]["layer"] = evil;
  record["measurements"][0] = {
      {"stage", evil}, {"subject", evil}, {"metric", evil}, {"value", 1.5}};
  record["provenance"] = {{evil, evil}, {"nested", {{evil, {evil}}}}};
  record["runs"] = json::array({{{"title", evil}}});
  const std::string html = html_report(record);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<b a=")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;"));
  expect_balanced(html);
}

// Scores and layers of a record as `quantize --eval-data` writes it.
json pipeline_record() {
  const auto row = [](const char* stage, const char* metric, double value) {
    return json{{"stage", stage}, {"subject", "fc1"}, {"metric", metric}, {"value", value}};
  };
  return {{"artifact", {{"file", "m.rq.safetensors"}, {"bytes", 1000}}},
          {"model", {{"bytes", 4000}}},
          {"recipe", {{"scheme", "w4a4"}}},
          {"seconds", 2.5},
          {"metrics",
           {{"before", {{"top1", 80.0}, {"count", 10}, {"top1_interval", {70.0, 90.0}}}},
            {"after", {{"top1", 78.5}, {"count", 10}}},
            {"difference",
             {{"difference", -1.5}, {"difference_interval", {-3.0, 0.5}}, {"kl", 0.25}}}}},
          {"layers",
           {{{"layer", "fc1"},
             {"kind", "linear"},
             {"weight_bits", 4},
             {"sqnr_db_before", 10.0},
             {"sqnr_db", 17.25}}}},
          {"measurements",
           {row("plain_rounding", "sqnr_db", 10), row("after:gptq", "sqnr_db", 17.25)}}};
}

TEST(RunView, ReadsTheRecordOfQuantize) {
  const RunView view = view_of(pipeline_record());
  ASSERT_EQ(view.scores.size(), 2u);
  EXPECT_EQ(view.scores[0].find("ci_high")->value, 90.0);
  EXPECT_EQ(view.scores[0].find("bytes")->value, 4000.0);
  EXPECT_EQ(view.scores[1].name, "m");
  EXPECT_EQ(view.scores[1].kind, "w4a4");
  EXPECT_EQ(view.scores[1].find("delta_top1")->value, -1.5);
  EXPECT_EQ(view.scores[1].find("delta_ci_high")->pointer,
            "/metrics/difference/difference_interval/1");
  EXPECT_EQ(view.scores[1].find("kl")->value, 0.25);
  ASSERT_EQ(view.layers.size(), 1u);
  EXPECT_EQ(view.layers[0].kind, "linear");
  EXPECT_EQ(view.layers[0].find("weight_bits")->value, 4.0);
  EXPECT_EQ(view.layers[0].find("activation_bits"), nullptr);
  EXPECT_EQ(view.layers[0].find("sqnr_db_before")->value, 10.0);
  EXPECT_EQ(view.layers[0].find("sqnr_db")->pointer, "/layers/0/sqnr_db");
  EXPECT_EQ(view.measurements.size(), 2u);
}

TEST(RunView, SeveralRunsShareOneTable) {
  json second = pipeline_record();
  second["title"] = "second";
  const json record{{"title", "demo"}, {"runs", {pipeline_record(), second}}};
  const RunView view = view_of(record);
  ASSERT_EQ(view.scores.size(), 3u);  // the float model once
  EXPECT_EQ(view.scores[2].name, "second");
  for (const TableRow& row : view.scores) {
    for (const auto& [key, number] : row.cells) {
      EXPECT_EQ(record.at(json::json_pointer(number.pointer)).get<double>(), number.value);
    }
  }
  const std::string html = html_report(record);
  expect_balanced(html);
  // Layer by layer, both runs side by side; a run without that layer has an empty cell.
  EXPECT_THAT(html, HasSubstr("data-key=\"/runs/0/layers/0/sqnr_db\">17.25</span></td>"
                              "<td class=\"bar\" style=\"--w:100.0%\"><span data-value=\"17.25\" "
                              "data-key=\"/runs/1/layers/0/sqnr_db\">"));
}

TEST(RunView, PartsThatDoNotFitAreLeftOut) {
  const json record{
      {"channel_ranges",
       {{{"norm", "a"}, {"before_low", {0, 1}}, {"before_high", {1}}},
        {{"norm", "b"}, {"before_low", {0, nullptr}}, {"before_high", {1, 2}}}}},
      {"weight_histograms", {{{"layer", "a"}, {"codes", {1, "x"}}}, {{"layer", "b"}}}}};
  const RunView view = view_of(record);
  EXPECT_TRUE(view.ranges.empty());
  EXPECT_TRUE(view.weights.empty());
}

// ---- charts -------------------------------------------------------------------------------------
std::vector<double> attributes(const std::string& svg, const std::string& pattern) {
  std::vector<double> values;
  const std::regex expression(pattern);
  for (std::sregex_iterator it(svg.begin(), svg.end(), expression), end; it != end; ++it) {
    values.push_back(std::stod((*it)[1].str()));
  }
  return values;
}

TEST(SqnrChart, BarsAreProportional) {
  const std::vector<TableRow> layers{{"a", "", {{"sqnr_db", {10, ""}}}},
                                     {"b", "", {{"sqnr_db", {20, ""}}}},
                                     {"c", "", {{"sqnr_db", {-5, ""}}}}};
  const auto widths = attributes(sqnr_chart(layers), "class=\"after\"[^>]* width=\"([0-9.]+)%\"");
  ASSERT_EQ(widths.size(), 3u);
  EXPECT_NEAR(widths[1], 2 * widths[0], 0.02);  // two printed decimals
  EXPECT_NEAR(widths[2], widths[0] / 2, 0.02);
}

TEST(SqnrChart, MarksTheThreeLowestOnly) {
  std::vector<TableRow> layers;
  for (int i = 0; i < 8; ++i) layers.push_back({"l", "", {{"sqnr_db", {10.0 + i, ""}}}});
  EXPECT_EQ(occurrences(sqnr_chart(layers), "after worst"), 3u);
}

TEST(RangeChart, SpansTheData) {
  ChannelRanges ranges;
  ranges.before_low = {-1, -4, 0};
  ranges.before_high = {1, 12, 0};
  const std::string svg = range_chart_before(ranges);
  const auto heights = attributes(svg.substr(svg.find("range-before")), "V([0-9.]+)H");
  ASSERT_EQ(heights.size(), 6u);
  // 4 % margins of 16 units: 12 lies at 0.64/17.28 and -4 at 16.64/17.28 of the height.
  EXPECT_NEAR(heights[1], 100 * 0.64 / 17.28, 0.01);
  EXPECT_NEAR(heights[4], 100 * 16.64 / 17.28, 0.01);
  EXPECT_NEAR(heights[2], heights[3], 1e-9);  // a dead channel has no height
  EXPECT_THAT(range_chart_before(ChannelRanges{}), "");
  EXPECT_THAT(range_chart_folded(ranges), "");
}

TEST(RangeChart, UnevennessIsWidestToMedian) {
  EXPECT_DOUBLE_EQ(widest_to_median({-1, -1, -5}, {1, 1, 1}), 3.0);
  EXPECT_EQ(widest_to_median({}, {}), 0.0);
  EXPECT_EQ(widest_to_median({2, 2}, {2, 2}), 0.0);
}

TEST(RangeChart, ThinningKeepsOutliers) {
  ChannelRanges ranges;
  ranges.folded_low.assign(5000, -1);
  ranges.folded_high.assign(5000, 1);
  ranges.folded_high[4321] = 100;
  const std::string svg = range_chart_folded(ranges);
  EXPECT_LT(svg.size(), 30000u);
  // 20 % margins of 101 units.
  const auto heights = attributes(svg.substr(svg.find("range-folded")), "V([0-9.]+)H");
  EXPECT_NEAR(*std::min_element(heights.begin(), heights.end()), 100 * 20.2 / 141.4, 0.01);
}

TEST(RangeChart, ConstantZeroStillHasABox) {
  ChannelRanges ranges;
  ranges.folded_low = ranges.folded_high = {0, 0};
  const std::string svg = range_chart_folded(ranges);
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, HasSubstr("class=\"field\""));
}

TEST(HistogramChart, BarsAndEntropy) {
  const CodeHistogram uniform{"a", -2, {5, 5, 5, 5}};
  EXPECT_DOUBLE_EQ(entropy_bits(uniform), 2.0);
  EXPECT_EQ(codes_used(uniform), 4);
  const CodeHistogram skew{"a", 0, {8, 0, 2, 0}};
  const auto heights =
      attributes(histogram_chart(skew, "codes"), "class=\"code\"[^>]* height=\"([0-9.]+)\"");
  EXPECT_THAT(heights, ::testing::ElementsAre(96.0, 24.0));
  EXPECT_THAT(histogram_chart(skew, "codes"), HasSubstr("code 2: 20.00 %"));
  EXPECT_EQ(entropy_bits({"a", 0, {0, 0}}), 0.0);
  EXPECT_THAT(histogram_chart({"a", 0, {0, 0}}, "codes"), Not(HasSubstr("nan")));
}

TEST(NumberText, Styles) {
  EXPECT_EQ(number_text(80.4615, {"", ""}), "80.46");
  EXPECT_EQ(number_text(3, {"", "", "", NumberStyle::kSigned}), "+3.00");
  EXPECT_EQ(number_text(999, {"", "", "", NumberStyle::kBytes}), "999 B");
  EXPECT_EQ(number_text(3412776, {"", "", "", NumberStyle::kBytes}), "3.41 MB");
}

TEST(MarkdownReport, TablesAndEscapes) {
  json record = example_record();
  record["rows"][0]["name"] = "a|b\n<i>*";
  const std::string text = markdown_report(record);
  EXPECT_THAT(text,
              HasSubstr("| a\\|b &lt;i>\\* | float | 80.46 | 77.23 to 83.33 | 94.77 | 650 |"));
  EXPECT_THAT(text, HasSubstr("## Weight codes"));
  EXPECT_THAT(text, HasSubstr("| blocks.11.mlp.fc2 |"));
}

}  // namespace
}  // namespace repquant::report
