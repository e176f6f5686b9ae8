#include <fmt/format.h>

#include "repquant/report/charts.h"
#include "repquant/report/html.h"
#include "repquant/report/record.h"
#include "repquant/report/table.h"

namespace repquant {
namespace report {
namespace {

// Names come from files: nothing in them may end a cell, start markup or open a tag.
std::string escape_markdown(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += ' ';
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      if (std::string_view("\\|*`[]#~").find(c) != std::string_view::npos) out += '\\';
      out += c;
    }
  }
  return out;
}

std::string cell(const TableRow& row, const Column& column) {
  const Number* number = row.find(column.key);
  if (number == nullptr) return "\u2013";
  std::string text = number_text(number->value, column);
  const Number* second = column.second.empty() ? nullptr : row.find(column.second);
  return second == nullptr ? text : text + " to " + number_text(second->value, column);
}

std::string table(const std::string& names, const std::string& kinds,
                  const std::vector<Column>& columns, const std::vector<TableRow>& rows) {
  std::string head = fmt::format("| {} | {} |", names, kinds), rule = "| --- | --- |", body;
  for (const Column& column : columns) {
    head += fmt::format(" {} |", column.heading);
    rule += " ---: |";
  }
  for (const TableRow& row : rows) {
    body += fmt::format("| {} | {} |", escape_markdown(row.name), escape_markdown(row.kind));
    for (const Column& column : columns) body += fmt::format(" {} |", cell(row, column));
    body += "\n";
  }
  return head + "\n" + rule + "\n" + body + "\n";
}

std::string layers(const std::vector<TableRow>& rows) {
  if (rows.empty()) return "No layer-wise error in this record.\n\n";
  return table("layer", "kind", used_columns(layer_columns(), rows), rows);
}

std::string histograms(const std::string& heading, const std::vector<CodeHistogram>& all) {
  if (all.empty()) return {};
  std::string text = "## " + heading +
                     "\n\n| layer | codes | used | entropy, bits |\n"
                     "| --- | --- | ---: | ---: |\n";
  for (const CodeHistogram& h : all) {
    text += fmt::format("| {} | {} to {} | {} of {} | {:.2f} |\n", escape_markdown(h.layer), h.low,
                        h.low + static_cast<int64_t>(h.counts.size()) - 1, codes_used(h),
                        h.counts.size(), entropy_bits(h));
  }
  return text + "\n";
}

std::string parts(const RunView& view) {
  std::string text = "## Error by layer\n\n" + layers(view.layers);
  text += histograms("Weight codes", view.weights) + histograms("Softmax codes", view.softmax);
  if (view.facts.empty()) return text;
  text += "## Provenance\n\n| fact | value |\n| --- | --- |\n";
  for (const Fact& fact : view.facts) {
    text += fmt::format("| {} | {} |\n", escape_markdown(fact.name), escape_markdown(fact.value));
  }
  return text + "\n";
}

}  // namespace
}  // namespace report

std::string markdown_report(const nlohmann::json& run) {
  using namespace report;
  const RunView view = view_of(run);
  const std::string title = view.title.empty() ? "Quantization report" : view.title;
  std::string text = fmt::format("# {}\n\n## Accuracy\n\n", escape_markdown(title));
  text += view.scores.empty()
              ? "No scores in this record: pass `--eval-data` to quantize.\n\n"
              : table("model", "scheme", used_columns(score_columns(), view.scores), view.scores);
  if (view.runs.empty() || !view.layers.empty()) text += parts(view);
  for (const RunView& one : view.runs) {
    text += fmt::format("# {}\n\n{}", escape_markdown(one.title), parts(one));
  }
  return text;
}

}  // namespace repquant
