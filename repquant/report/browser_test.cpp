#include "repquant/report/testing.h"
#include "repquant/report/testing_browser.h"

namespace repquant::report {
namespace {

using nlohmann::json;

struct Browser : testing::BrowserTest {};

TEST_F(Browser, ReportIsSound) {
  json record = example_record();
  record["layers"][0]["layer"] = "</svg><script>console.error('hostile')</script><img src=x>";
  expect_sound(record, 100, 300);
}

TEST_F(Browser, ReportOfSeveralRunsIsSound) {
  json run = example_record();
  run.erase("rows");
  run["title"] = "one run";
  json other = run;
  other["title"] = "another run";
  other["layers"].erase(3);  // not every run has every layer
  expect_sound({{"title", "two"}, {"rows", example_record()["rows"]}, {"runs", {run, other}}}, 200,
               600);
}

}  // namespace
}  // namespace repquant::report
