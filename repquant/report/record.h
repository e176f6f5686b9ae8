#pragma once
// What a run record says, in the shape the writers of reports need. A record is JSON from a file:
// a part of another type than the one documented is a part that is missing, never an error.
//
// Record (every part optional; docs/pipeline/report.md):
//   title              string
//   rows               [{name, scheme, top1, top5, count, ci_low, ci_high, agreement, kl, bytes,
//                        seconds, delta_top1, delta_ci_low, delta_ci_high}]; percent, nats, bytes;
//                      the spellings of `eval` (top1_interval, difference, difference_interval)
//                      are read too. Without rows: metrics.before and metrics.after
//   layers             [{layer, kind, weight_bits, activation_bits, sqnr_db_before, sqnr_db,
//                      cosine_before, cosine, output_mse_before, output_mse}]; before: plainly
//                      rounded, no bits: float
//   channel_ranges     [{norm, before_low, before_high, clip_low, clip_high, folded_low,
//                      folded_high}], one number a channel
//   weight_histograms, softmax_code_histograms   [{layer, kind, codes: [count...], low}]; kind: of
//                      the codes, may be missing; low: the code of the first count, default 0
//   measurements       [{stage, subject, metric, value}]
//   runs               [record...]: several runs in one report, each with a title
//   provenance, recipe, artifact, model, machine, calibration, preprocess, seconds, ...: facts
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace repquant::report {

struct Number {
  double value = 0.0;
  std::string pointer;  // RFC 6901 pointer of the value in the record
};

struct TableRow {
  std::string name, kind;               // kind: scheme of a model, op of a layer
  std::map<std::string, Number> cells;  // only numbers that are there and finite
  const Number* find(const std::string& key) const;
};

struct ChannelRanges {
  std::string norm;
  // One value a channel; each pair empty or of equal length.
  std::vector<double> before_low, before_high, clip_low, clip_high, folded_low, folded_high;
};

struct CodeHistogram {
  std::string layer;
  int64_t low = 0;
  std::vector<double> counts;
  std::string kind = {};
};

struct Fact {
  std::string name, value;
};

struct RunView {
  std::string title;
  std::vector<TableRow> scores, layers;
  std::vector<ChannelRanges> ranges;
  std::vector<CodeHistogram> weights, softmax;
  std::vector<TableRow> measurements;  // name: subject, kind: stage; one cell, the metric
  std::vector<Fact> facts;
  std::vector<RunView> runs;
};

// Has at least one of the parts above that only records have.
bool is_record(const nlohmann::json& value);

// `pointer`: where `run` lies in the whole record.
RunView view_of(const nlohmann::json& run, const std::string& pointer = "");

}  // namespace repquant::report
