#include "repquant/report/html.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "repquant/report/charts.h"
#include "repquant/report/record.h"
#include "repquant/report/style.h"
#include "repquant/report/table.h"

namespace repquant {
namespace report {
namespace {

// Shortest text that reads back as the same double.
std::string raw(double value) { return fmt::format("{}", value); }

std::string figure_of(const Number& number, const Column& column) {
  return fmt::format("<span data-value=\"{}\" data-key=\"{}\">{}</span>", raw(number.value),
                     escape_html(number.pointer), number_text(number.value, column));
}

std::string cell(const TableRow& row, const Column& column) {
  const Number* number = row.find(column.key);
  if (number == nullptr) return "<td>\u2013</td>";
  std::string text = figure_of(*number, column);
  if (!column.second.empty()) {
    const Number* second = row.find(column.second);
    if (second != nullptr) text += " to " + figure_of(*second, column);
  }
  return fmt::format("<td>{}</td>", text);
}

// ---- tables -------------------------------------------------------------------------------------
std::string table(const std::string& caption, const std::string& names, const std::string& kinds,
                  const std::vector<Column>& columns, const std::vector<TableRow>& rows,
                  const std::string& frame) {
  const bool any_kind =
      std::any_of(rows.begin(), rows.end(), [](const TableRow& row) { return !row.kind.empty(); });
  std::string html = fmt::format(
      "<div class=\"scroll {}\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table>"
      "<caption>{}</caption><thead><tr><th scope=\"col\">{}</th>",
      frame, escape_html(caption), escape_html(caption), names);
  if (any_kind) html += fmt::format("<th scope=\"col\" class=\"text\">{}</th>", kinds);
  for (const Column& column : columns) {
    html += fmt::format("<th scope=\"col\">{}</th>", escape_html(column.heading));
  }
  html += "</tr></thead><tbody>\n";
  for (const TableRow& row : rows) {
    html += fmt::format("<tr><th scope=\"row\" title=\"{0}\">{0}</th>", escape_html(row.name));
    if (any_kind) html += fmt::format("<td class=\"text\">{}</td>", escape_html(row.kind));
    for (const Column& column : columns) html += cell(row, column);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string measurement_table(const std::vector<TableRow>& rows) {
  std::string html =
      "<details><summary>All measurements, in the order they were made</summary>"
      "<div class=\"scroll tall\" role=\"region\" tabindex=\"0\" "
      "aria-label=\"measurements\"><table>"
      "<caption>Measurements</caption><thead><tr><th scope=\"col\">subject</th>"
      "<th scope=\"col\">stage</th><th scope=\"col\">metric</th><th scope=\"col\">value</th></tr>"
      "</thead><tbody>\n";
  for (const TableRow& row : rows) {
    const auto& [metric, number] = *row.cells.begin();
    html += fmt::format(
        "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td><td class=\"text\">{}</td><td>"
        "<span data-value=\"{}\" data-key=\"{}\">{:.5g}</span></td></tr>\n",
        escape_html(row.name), escape_html(row.kind), escape_html(metric), raw(number.value),
        escape_html(number.pointer), number.value);
  }
  return html + "</tbody></table></div></details>\n";
}

std::string note(const std::string& text) {
  return fmt::format("<p class=\"note\">{}</p>\n", text);
}

std::string section(const std::string& id, const std::string& heading, const std::string& inside) {
  return fmt::format(
      "<section id=\"{0}\" aria-labelledby=\"{0}-h\"><h2 id=\"{0}-h\">{1}</h2>\n{2}"
      "</section>\n",
      id, heading, inside);
}

// ---- parts --------------------------------------------------------------------------------------
std::string accuracy(const RunView& view) {
  if (view.scores.empty()) {
    return note("No scores in this record: pass <code>--eval-data</code> to quantize.");
  }
  return "<p class=\"quiet\">Scored on the same images. The interval of a difference is of the "
         "paired difference: models that share their images share most of their luck.</p>" +
         table("Accuracy", "model", "scheme", used_columns(score_columns(), view.scores),
               view.scores, "") +
         "<figure><figcaption>Top-1 accuracy in percent with its 95 % interval</figcaption>" +
         accuracy_chart(view.scores) + "</figure>\n";
}

std::string layer_part(const RunView& view) {
  if (view.layers.empty()) return note("No layer-wise error in this record.");
  const bool before = std::any_of(view.layers.begin(), view.layers.end(), [](const TableRow& row) {
    return row.find("sqnr_db_before") != nullptr;
  });
  std::string html =
      "<p class=\"quiet\">Signal-to-quantization-noise ratio of each layer's output against the "
      "float model, everything before it quantized as well; higher is better, 6 dB are one bit.";
  if (before) {
    html +=
        " Before: the same bits by plain rounding (round to nearest, one min-max range a tensor, "
        "taken from the measured samples themselves: its best case, tighter than a calibrated "
        "range). After: this run. The gap is what the method gained.";
  }
  html += "</p><ul class=\"legend\">";
  if (before) html += "<li><i class=\"k-before\"></i>before: plainly rounded</li>";
  html +=
      "<li><i class=\"k-after\"></i>after</li>"
      "<li><i class=\"k-worst\"></i>after, the three lowest</li></ul>";
  html += fmt::format("<figure>{}</figure>\n", sqnr_chart(view.layers));
  if (!before) {
    html += note("No SQNR of plain rounding in this record.");
  }
  return html + "<details open><summary>The same as a table</summary>" +
         table("Layer-wise error", "layer", "kind", used_columns(layer_columns(), view.layers),
               view.layers, "tall") +
         "</details>\n";
}

std::string unevenness(const ChannelRanges& r) {
  const double before = widest_to_median(r.before_low, r.before_high),
               folded = widest_to_median(r.folded_low, r.folded_high);
  std::string text;
  if (before > 0) text = fmt::format(" \u00b7 widest / median {:.2f}", before);
  if (before > 0 && folded > 0) text += fmt::format(" \u2192 {:.2f}", folded);
  return text;
}

std::string range_part(const RunView& view) {
  if (view.ranges.empty()) return note("No channel ranges in this record.");
  std::string html =
      "<p class=\"quiet\">Output of each normalization, channel by channel, with rotations "
      "applied. One scale serves all channels of a tensor: where ranges differ, codes are wasted. "
      "Clipping narrows them, the fold makes them alike: the widest channel comes closer to the "
      "median one.</p><ul class=\"legend\"><li><i class=\"k-before\"></i>measured</li>"
      "<li><i class=\"k-clip\"></i>bounds of the codes</li>"
      "<li><i class=\"k-folded\"></i>after the fold</li></ul><div class=\"cards wide\">\n";
  for (const ChannelRanges& r : view.ranges) {
    html += fmt::format("<figure><figcaption><b>{}</b>{}</figcaption>{}{}</figure>\n",
                        escape_html(r.norm), unevenness(r), range_chart_before(r),
                        range_chart_folded(r));
  }
  return html + "</div>\n";
}

std::string histogram_part(const std::vector<CodeHistogram>& all, const std::string& what,
                           const std::string& about) {
  if (all.empty()) return note("No " + what + " in this record.");
  std::string html = "<p class=\"quiet\">" + about +
                     " Below each: how many codes are used, and their entropy.</p>"
                     "<div class=\"cards small\">\n";
  for (const CodeHistogram& h : all) {
    html += fmt::format(
        "<figure><figcaption><b>{}</b></figcaption>{}<figcaption>{}{} of {} \u00b7 {:.2f} "
        "bits</figcaption></figure>\n",
        escape_html(h.layer), histogram_chart(h, what),
        h.kind.empty() ? "" : escape_html(h.kind) + " \u00b7 ", codes_used(h), h.counts.size(),
        entropy_bits(h));
  }
  return html + "</div>\n";
}

std::string fact_table(const std::vector<Fact>& facts) {
  if (facts.empty()) return note("No provenance in this record.");
  std::string html =
      "<table class=\"facts\"><caption>What was run, on what</caption><thead><tr>"
      "<th scope=\"col\">fact</th><th scope=\"col\">value</th></tr></thead><tbody>\n";
  for (const Fact& fact : facts) {
    html += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape_html(fact.name),
                        escape_html(fact.value));
  }
  return html + "</tbody></table>\n";
}

std::string tile(const std::string& figure, const std::string& about) {
  std::string text;
  for (const char c : escape_html(about)) text += c == '_' ? "_<wbr>" : std::string(1, c);
  return fmt::format("<li><b>{}</b><span>{}</span></li>", figure, text);
}

std::string size_text(const Number& bytes) {
  return number_text(bytes.value, {"", "", "", NumberStyle::kBytes});
}

// Of several runs: one a model.
std::string tiles_of_models(const RunView& view) {
  std::string html;
  for (const TableRow& row : view.scores) {
    const Number *top1 = row.find("top1"), *bytes = row.find("bytes");
    if (top1 == nullptr) continue;
    html += tile(fmt::format("{:.2f} %", top1->value),
                 "top-1, " + row.name + (bytes == nullptr ? "" : ", " + size_text(*bytes)));
  }
  return html.empty() ? html : fmt::format("<ul class=\"tiles\">{}</ul>\n", html);
}

std::string tiles(const RunView& view) {
  if (view.runs.size() > 1) return tiles_of_models(view);
  std::string html;
  const TableRow* last = view.scores.empty() ? nullptr : &view.scores.back();
  const TableRow* first = view.scores.size() < 2 ? nullptr : &view.scores.front();
  for (const TableRow* row : {first, last}) {
    const Number* top1 = row == nullptr ? nullptr : row->find("top1");
    if (top1 != nullptr) html += tile(fmt::format("{:.2f} %", top1->value), "top-1, " + row->name);
  }
  const Number* bytes = last == nullptr ? nullptr : last->find("bytes");
  const Number* from = first == nullptr ? nullptr : first->find("bytes");
  if (bytes != nullptr) {
    html += tile(size_text(*bytes), "size, " + last->name);
    if (from != nullptr && bytes->value > 0) {
      html += tile(fmt::format("{:.1f} \u00d7", from->value / bytes->value),
                   "smaller than " + first->name);
    }
  }
  const TableRow* worst = nullptr;
  for (const TableRow& row : view.layers) {
    const Number* sqnr = row.find("sqnr_db");
    if (sqnr != nullptr && (worst == nullptr || sqnr->value < worst->find("sqnr_db")->value))
      worst = &row;
  }
  if (worst != nullptr) {
    html += tile(fmt::format("{:.1f} dB", worst->find("sqnr_db")->value),
                 "lowest SQNR, " + worst->name);
  }
  return html.empty() ? html : fmt::format("<ul class=\"tiles\">{}</ul>\n", html);
}

bool has_parts(const RunView& view) {
  return !view.layers.empty() || !view.ranges.empty() || !view.weights.empty() ||
         !view.softmax.empty() || !view.measurements.empty();
}

std::string parts(const RunView& view, const std::string& prefix) {
  std::string html = section(prefix + "layers", "Error by layer", layer_part(view));
  html += section(prefix + "ranges", "Channel ranges before and after clipping and fold",
                  range_part(view));
  html +=
      section(prefix + "weights", "Weight codes",
              histogram_part(view.weights, "weight codes",
                             "How often each integer code of a layer's weights occurs. Few used "
                             "codes mean a range that outliers stretched."));
  html +=
      section(prefix + "softmax", "Softmax codes",
              histogram_part(view.softmax, "softmax codes",
                             "How often each code of the attention probabilities occurs, in "
                             "one image. Of log codes 0 is the largest probability and the last "
                             "is zero; of uniform and row codes 0 is zero."));
  std::string facts = fact_table(view.facts);
  if (!view.measurements.empty()) facts += measurement_table(view.measurements);
  return html + section(prefix + "provenance", "Provenance", facts);
}

// SQNR of each layer, one column a run; layers by name, in the order of the first run.
std::string comparison(const std::vector<RunView>& runs) {
  std::string head = "<th scope=\"col\">layer</th>", body;
  double most = 0;
  std::vector<std::map<std::string, const Number*>> columns;
  for (const RunView& run : runs) {
    head += fmt::format("<th scope=\"col\">{}</th>", escape_html(run.title));
    auto& column = columns.emplace_back();
    for (const TableRow& row : run.layers) {
      column[row.name] = row.find("sqnr_db");
      if (column[row.name] != nullptr) most = std::max(most, column[row.name]->value);
    }
  }
  for (const TableRow& layer : runs.front().layers) {
    body += fmt::format("<tr><th scope=\"row\">{}</th>", escape_html(layer.name));
    for (const auto& column : columns) {
      const auto found = column.find(layer.name);
      const Number* sqnr = found == column.end() ? nullptr : found->second;
      body += sqnr == nullptr
                  ? "<td>\u2013</td>"
                  : fmt::format("<td class=\"bar\" style=\"--w:{:.1f}%\">{}</td>",
                                100 * std::clamp(sqnr->value / std::max(most, 1e-9), 0.0, 1.0),
                                figure_of(*sqnr, {"", ""}));
    }
    body += "</tr>\n";
  }
  return fmt::format(
      "<p class=\"quiet\">SQNR of each layer's output in dB after each run; higher is better. The "
      "layers that fall behind are where accuracy is lost.</p>"
      "<div class=\"scroll tall\" role=\"region\" tabindex=\"0\" aria-label=\"SQNR by layer and "
      "run\"><table class=\"equal\" style=\"min-width:{}rem\"><caption>SQNR by layer and "
      "run</caption>"
      "<thead><tr>{}</tr></thead><tbody>\n{}</tbody></table></div>\n",
      10 + 6 * runs.size(), head, body);
}

bool comparable(const RunView& view) {
  return view.runs.size() > 1 && !view.runs.front().layers.empty();
}

std::string navigation(const RunView& view) {
  std::string html = "<nav aria-label=\"Parts\"><a href=\"#accuracy\">Accuracy</a>";
  if (view.runs.empty() || has_parts(view)) {
    html +=
        "<a href=\"#layers\">Layers</a><a href=\"#ranges\">Channel ranges</a>"
        "<a href=\"#weights\">Weight codes</a><a href=\"#softmax\">Softmax codes</a>"
        "<a href=\"#provenance\">Provenance</a>";
  }
  if (comparable(view)) html += "<a href=\"#comparison\">Error by layer</a>";
  for (size_t i = 0; i < view.runs.size(); ++i) {
    html += fmt::format("<a href=\"#run{}\">{}</a>", i, escape_html(view.runs[i].title));
  }
  return html + "</nav>\n";
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        if ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
          out += "\uFFFD";
        } else {
          out += c;
        }
    }
  }
  return out;
}

}  // namespace report

std::string html_report(const nlohmann::json& run) {
  using namespace report;
  const RunView view = view_of(run);
  const std::string title = view.title.empty() ? "Quantization report" : view.title;
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<meta name=\"generator\" content=\"repquant\"><link rel=\"icon\" href=\"data:,\">"
      "<title>{0}</title>\n<style>{1}</style></head><body>\n<header><h1>{0}</h1>\n",
      escape_html(title), style_sheet());
  html += navigation(view) + tiles(view) + "</header>\n<main>\n";
  html += section("accuracy", "Accuracy", accuracy(view));
  if (view.runs.empty() || has_parts(view)) html += parts(view, "");
  if (comparable(view))
    html += section("comparison", "Error by layer, run by run", comparison(view.runs));
  for (size_t i = 0; i < view.runs.size(); ++i) {
    html +=
        fmt::format("<h2 class=\"run\" id=\"run{}\">{}</h2>\n", i, escape_html(view.runs[i].title));
    html += parts(view.runs[i], fmt::format("run{}-", i));
  }
  return html +
         "</main>\n<footer>Written by repquant. Every figure carries its unrounded value "
         "and its place in the run record.</footer>\n</body></html>\n";
}

}  // namespace repquant
