#include "repquant/report/record.h"

#include <cmath>

#include <fmt/format.h>

namespace repquant::report {
namespace {

using nlohmann::json;

const json* member(const json& object, const std::string& key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

const json& list_of(const json& object, const std::string& key) {
  static const json kEmpty = json::array();
  const json* found = member(object, key);
  return found != nullptr && found->is_array() ? *found : kEmpty;
}

std::string text_of(const json& object, const std::string& key) {
  const json* found = member(object, key);
  return found != nullptr && found->is_string() ? found->get<std::string>() : std::string();
}

std::optional<double> number_of(const json* value) {
  if (value == nullptr || !value->is_number()) return std::nullopt;
  const double number = value->get<double>();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

void read_cell(const json& object, const std::string& key, const std::string& pointer,
               TableRow& row, const std::string& as) {
  if (const auto number = number_of(member(object, key))) {
    row.cells[as] = {*number, pointer + "/" + key};
  }
}

void read_pair(const json& object, const std::string& key, const std::string& pointer,
               TableRow& row, const std::string& low, const std::string& high) {
  const json& pair = list_of(object, key);
  if (pair.size() != 2 || !number_of(&pair[0]) || !number_of(&pair[1])) return;
  row.cells[low] = {*number_of(&pair[0]), fmt::format("{}/{}/0", pointer, key)};
  row.cells[high] = {*number_of(&pair[1]), fmt::format("{}/{}/1", pointer, key)};
}

// Both spellings: that of `eval` first, the documented one wins.
void read_score(const json& object, const std::string& pointer, TableRow& row) {
  read_pair(object, "top1_interval", pointer, row, "ci_low", "ci_high");
  read_pair(object, "difference_interval", pointer, row, "delta_ci_low", "delta_ci_high");
  read_cell(object, "difference", pointer, row, "delta_top1");
  for (const char* key : {"top1", "top5", "count", "ci_low", "ci_high", "agreement", "kl", "bytes",
                          "seconds", "delta_top1", "delta_ci_low", "delta_ci_high"}) {
    read_cell(object, key, pointer, row, key);
  }
}

std::vector<TableRow> rows_of(const json& run, const std::string& pointer) {
  std::vector<TableRow> rows;
  const json& list = list_of(run, "rows");
  for (size_t i = 0; i < list.size(); ++i) {
    TableRow row{text_of(list[i], "name"), text_of(list[i], "scheme"), {}};
    read_score(list[i], fmt::format("{}/rows/{}", pointer, i), row);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string scheme_of(const json& run) {
  const json* recipe = member(run, "recipe");
  return recipe == nullptr ? "" : text_of(*recipe, "scheme");
}

std::string title_of(const json& run) {
  const std::string title = text_of(run, "title"), extension = ".rq.safetensors";
  if (!title.empty()) return title;
  const json* artifact = member(run, "artifact");
  const std::string file = artifact == nullptr ? "" : text_of(*artifact, "file");
  return file.ends_with(extension) ? file.substr(0, file.size() - extension.size()) : file;
}

// The float model and the artifact of one `quantize --eval-data`.
std::vector<TableRow> rows_of_metrics(const json& run, const std::string& pointer) {
  std::vector<TableRow> rows;
  const json* metrics = member(run, "metrics");
  if (metrics == nullptr) return rows;
  if (const json* before = member(*metrics, "before")) {
    TableRow row{"float model", "float", {}};
    read_score(*before, pointer + "/metrics/before", row);
    if (const json* model = member(run, "model")) {
      read_cell(*model, "bytes", pointer + "/model", row, "bytes");
    }
    rows.push_back(std::move(row));
  }
  if (const json* after = member(*metrics, "after")) {
    TableRow row{title_of(run), scheme_of(run), {}};
    if (row.name.empty()) row.name = "quantized";
    read_score(*after, pointer + "/metrics/after", row);
    if (const json* difference = member(*metrics, "difference")) {
      read_score(*difference, pointer + "/metrics/difference", row);
    }
    if (const json* artifact = member(run, "artifact")) {
      read_cell(*artifact, "bytes", pointer + "/artifact", row, "bytes");
    }
    read_cell(run, "seconds", pointer, row, "seconds");
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<TableRow> layers_of(const json& run, const std::string& pointer) {
  std::vector<TableRow> rows;
  const json& list = list_of(run, "layers");
  for (size_t i = 0; i < list.size(); ++i) {
    TableRow row{text_of(list[i], "layer"), text_of(list[i], "kind"), {}};
    for (const char* key : {"weight_bits", "activation_bits", "sqnr_db_before", "sqnr_db",
                            "cosine_before", "cosine", "output_mse_before", "output_mse"}) {
      read_cell(list[i], key, fmt::format("{}/layers/{}", pointer, i), row, key);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<TableRow> measurements_of(const json& run, const std::string& pointer) {
  std::vector<TableRow> rows;
  const json& list = list_of(run, "measurements");
  for (size_t i = 0; i < list.size(); ++i) {
    TableRow row{text_of(list[i], "subject"), text_of(list[i], "stage"), {}};
    read_cell(list[i], "value", fmt::format("{}/measurements/{}", pointer, i), row,
              text_of(list[i], "metric"));
    if (!row.cells.empty()) rows.push_back(std::move(row));
  }
  return rows;
}

// Not-a-number and null become the neighbouring bound's absence: 0 would be a lie, so the line
// ends.
std::vector<double> line_of(const json& object, const std::string& key) {
  std::vector<double> line;
  for (const json& value : list_of(object, key)) {
    const auto number = number_of(&value);
    if (!number) return {};
    line.push_back(*number);
  }
  return line;
}

void drop_unless_paired(std::vector<double>& low, std::vector<double>& high) {
  if (low.size() == high.size()) return;
  low.clear();
  high.clear();
}

std::vector<ChannelRanges> ranges_of(const json& run) {
  std::vector<ChannelRanges> all;
  for (const json& item : list_of(run, "channel_ranges")) {
    ChannelRanges r{text_of(item, "norm"),        line_of(item, "before_low"),
                    line_of(item, "before_high"), line_of(item, "clip_low"),
                    line_of(item, "clip_high"),   line_of(item, "folded_low"),
                    line_of(item, "folded_high")};
    drop_unless_paired(r.before_low, r.before_high);
    drop_unless_paired(r.clip_low, r.clip_high);
    drop_unless_paired(r.folded_low, r.folded_high);
    if (!r.before_low.empty() || !r.clip_low.empty() || !r.folded_low.empty()) all.push_back(r);
  }
  return all;
}

std::vector<CodeHistogram> histograms_of(const json& run, const std::string& key) {
  std::vector<CodeHistogram> all;
  for (const json& item : list_of(run, key)) {
    CodeHistogram histogram{text_of(item, "layer"), 0, line_of(item, "codes"),
                            text_of(item, "kind")};
    if (const json* low = member(item, "low"); low != nullptr && low->is_number_integer()) {
      histogram.low = low->get<int64_t>();
    }
    for (double& count : histogram.counts) count = std::max(count, 0.0);
    if (!histogram.counts.empty()) all.push_back(std::move(histogram));
  }
  return all;
}

std::string fact_text(const json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// Nested objects as "calibration.seed"; lists and deep parts as JSON text.
void add_facts(const json& object, const std::string& prefix, int depth, std::vector<Fact>& facts) {
  for (const auto& [key, value] : object.items()) {
    const std::string name = prefix.empty() ? key : prefix + "." + key;
    if (value.is_object() && depth > 0) {
      add_facts(value, name, depth - 1, facts);
    } else if (!value.is_null()) {
      facts.push_back({name, fact_text(value)});
    }
  }
}

std::vector<Fact> facts_of(const json& run) {
  std::vector<Fact> facts;
  for (const char* key : {"version", "model", "artifact", "calibration", "preprocess", "machine",
                          "seconds", "cpu_seconds", "peak_memory_bytes", "provenance", "recipe"}) {
    const json* value = member(run, key);
    if (value == nullptr || value->is_null()) continue;
    add_facts(json{{key, *value}}, "", 2, facts);
  }
  return facts;
}

}  // namespace

const Number* TableRow::find(const std::string& key) const {
  const auto found = cells.find(key);
  return found == cells.end() ? nullptr : &found->second;
}

bool is_record(const json& value) {
  const json* metrics = member(value, "metrics");
  if (metrics != nullptr && metrics->is_object()) return true;
  for (const char* part : {"rows", "layers", "channel_ranges", "weight_histograms",
                           "softmax_code_histograms", "measurements", "runs"}) {
    const json* found = member(value, part);
    if (found != nullptr && found->is_array()) return true;
  }
  return false;
}

RunView view_of(const json& run, const std::string& pointer) {
  RunView view;
  view.title = title_of(run);
  view.scores = rows_of(run, pointer);
  if (view.scores.empty()) view.scores = rows_of_metrics(run, pointer);
  view.measurements = measurements_of(run, pointer);
  view.layers = layers_of(run, pointer);
  view.ranges = ranges_of(run);
  view.weights = histograms_of(run, "weight_histograms");
  view.softmax = histograms_of(run, "softmax_code_histograms");
  view.facts = facts_of(run);
  const json& runs = list_of(run, "runs");
  for (size_t i = 0; i < runs.size() && pointer.empty(); ++i) {
    view.runs.push_back(view_of(runs[i], fmt::format("/runs/{}", i)));
    if (list_of(run, "rows").empty()) {
      for (const TableRow& row : view.runs.back().scores) {
        if (row.kind != "float" || view.scores.empty()) view.scores.push_back(row);
      }
    }
  }
  return view;
}

}  // namespace repquant::report
