// repquant compare: two models layer by layer.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/data_options.h"
#include "cli/exit_codes.h"
#include "cli/rotated_steps.h"
#include "repquant/core/files.h"
#include "repquant/report/html.h"

namespace repquant::cli {
namespace {

struct Options {
  std::string a, b, html;
  DataRequest data;
  int64_t samples = 8, rows = 20;
  double minimum = -1e9;
  bool gated = false;
};

struct Layer {
  double energy = 0, error = 0, cross = 0, other = 0;  // of floats
  int64_t elements = 0, different = 0;
  int largest = 0;  // code difference
  bool codes = false;
};

struct Kept {
  DType dtype;
  Shape shape;
  std::vector<double> values;
};

Kept keep(ConstTensorView value) {
  Kept kept{value.dtype, Shape(value.shape.begin(), value.shape.end()), {}};
  if (value.dtype == DType::kU8)
    kept.values.assign(value.as<uint8_t>().begin(), value.as<uint8_t>().end());
  if (value.dtype == DType::kF32)
    kept.values.assign(value.as<float>().begin(), value.as<float>().end());
  return kept;
}

bool same_but_for_leading_ones(const Shape& a, const Shape& b) {
  const auto first = [](const Shape& s) {
    return std::find_if(s.begin(), s.end(), [](int64_t n) { return n != 1; });
  };
  return std::equal(first(a), a.end(), first(b), b.end());
}

// An artifact has a convolution's result in rows of channels, a float model in planes [1, C, H, W].
// False when the two are not of one layout even then.
bool align(Kept& planes, const Shape& rows) {
  if (same_but_for_leading_ones(planes.shape, rows)) return true;
  if (planes.shape.size() != 4 || rows.size() < 2) return false;
  const int64_t channels = planes.shape[1], pixels = planes.shape[2] * planes.shape[3];
  if (rows.back() != channels || element_count(rows) != channels * pixels) return false;
  std::vector<double> turned(planes.values.size());
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t p = 0; p < pixels; ++p)
      turned[static_cast<size_t>(p * channels + c)] =
          planes.values[static_cast<size_t>(c * pixels + p)];
  }
  planes = {planes.dtype, rows, std::move(turned)};
  return true;
}

void accumulate(Layer& layer, const Kept& a, const Kept& b) {
  layer.codes = a.dtype == DType::kU8;
  for (size_t i = 0; i < a.values.size(); ++i) {
    const double x = a.values[i], y = b.values[i];
    layer.energy += x * x;
    layer.other += y * y;
    layer.cross += x * y;
    layer.error += (x - y) * (x - y);
    layer.different += x != y ? 1 : 0;
    if (layer.codes) layer.largest = std::max(layer.largest, static_cast<int>(std::abs(x - y)));
  }
  layer.elements += static_cast<int64_t>(a.values.size());
}

using Layers = std::vector<std::pair<std::string, Layer>>;

// Layers that both have under one name, with results of one type and shape, in order of b; but for
// those in `skipped`.
Layers measure(const OpenedModel& a, const OpenedModel& b, const Dataset& data,
               const Options& options, const std::set<std::string>& skipped,
               const Context& context) {
  Layers layers;
  std::map<std::string, size_t> places;
  for_each_item(data, options.samples, context, "compare", [&](int64_t, Model::Inputs item) {
    std::map<std::string, Kept> first;
    a.trace(item, [&](const std::string& name, ConstTensorView value) {
      if (skipped.count(name) == 0) first[name] = keep(value);
    });
    b.trace(item, [&](const std::string& name, ConstTensorView value) {
      const auto found = first.find(name);
      if (found == first.end() || found->second.dtype != value.dtype || value.size() == 0) return;
      Kept other = keep(value);
      if (other.values.empty() || other.values.size() != found->second.values.size()) return;
      if (!align(found->second, other.shape) && !align(other, found->second.shape)) return;
      if (places.emplace(name, layers.size()).second) layers.emplace_back(name, Layer{});
      accumulate(layers[places[name]].second, found->second, other);
    });
  });
  return layers;
}

double sqnr(const Layer& l) {
  if (l.error == 0) return INFINITY;
  return 10 * std::log10(std::max(l.energy, 1e-300) / l.error);
}

nlohmann::json row_json(const std::string& name, const Layer& l) {
  const double norm = std::sqrt(l.energy * l.other);
  nlohmann::json row = {{"layer", name},
                        {"type", l.codes ? "codes" : "float"},
                        {"elements", l.elements},
                        {"different", l.different},
                        {"cosine", norm > 0 ? l.cross / norm : 1.0}};
  row["sqnr_db"] = l.error == 0 ? nlohmann::json() : nlohmann::json(sqnr(l));
  if (l.codes) row["largest_code_difference"] = l.largest;
  return row;
}

// Those that hold other numbers by design: the two models stand in different bases there.
std::set<std::string> rotated(const OpenedModel& a, const OpenedModel& b) {
  const auto of = [](const OpenedModel& m) {
    return m.program != nullptr ? rotations(m.program->plan()) : Rotations{};
  };
  const Rotations first = of(a), second = of(b);
  if (first == second) return {};
  std::set<std::string> names;
  for (const OpenedModel* model : {&a, &b}) {
    if (model->program != nullptr) names.merge(rotated_steps(model->program->plan(), of(*model)));
  }
  return names;
}

std::string table(const nlohmann::json& result, int64_t rows) {
  std::string text =
      fmt::format("{:<40} {:>9} {:>9} {:>10}\n", "layer", "SQNR dB", "cosine", "different");
  for (const auto& row : result["layers"]) {
    if (rows-- == 0) break;
    const double share = row["different"].get<double>() / row["elements"].get<double>();
    text += fmt::format(
        "{:<40} {:>9} {:>9.6f} {:>8.2f} %\n", row["layer"].get<std::string>(),
        row["sqnr_db"].is_null() ? "inf" : fmt::format("{:.2f}", row["sqnr_db"].get<double>()),
        row["cosine"].get<double>(), 100 * share);
  }
  const size_t skipped = result["rotated"].size();
  if (skipped > 0) {
    text +=
        fmt::format("{} steps not compared: an offline rotation changed their basis\n", skipped);
  }
  return text;
}

std::string page(const nlohmann::json& result) {
  using report::escape_html;
  std::string rows;
  for (const auto& row : result["layers"]) {
    rows += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                        escape_html(row["layer"].get<std::string>()),
                        escape_html(row["type"].get<std::string>()), row["sqnr_db"].dump(),
                        row["cosine"].dump(), row["different"].dump());
  }
  std::string skipped;
  for (const auto& name : result["rotated"])
    skipped += fmt::format("<li>{}</li>", escape_html(name.get<std::string>()));
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><link rel=\"icon\" "
      "href=\"data:,\"><title>repquant compare</title><style>body{{font:14px "
      "sans-serif;margin:2em}}"
      "td,th{{padding:.2em .8em;text-align:right}}td:first-child{{text-align:left}}</style></head>"
      "<body>\n<h1>{} and {}</h1>\n<p>{} items, worst layer first; an SQNR of null means equal."
      "</p>\n<table><tr><th>layer</th><th>values</th><th>SQNR dB</th><th>cosine</th>"
      "<th>different</th></tr>\n{}</table>\n{}</body></html>\n",
      escape_html(result["a"].get<std::string>()), escape_html(result["b"].get<std::string>()),
      result["samples"].dump(), rows,
      skipped.empty() ? ""
                      : "<p>Not compared, an offline rotation changed their basis:</p><ul>" +
                            skipped + "</ul>\n");
}

Outcome compare(Options& options, const Context& context) {
  const OpenedModel a = open_model(options.a, context), b = open_model(options.b, context);
  const auto data = open_data(options.data, a.preprocess ? a : b, context);
  const std::set<std::string> skipped = rotated(a, b);
  Layers layers = measure(a, b, *data, options, skipped, context);
  std::stable_sort(layers.begin(), layers.end(),
                   [](const auto& x, const auto& y) { return sqnr(x.second) < sqnr(y.second); });
  Outcome outcome;
  outcome.result = {{"a", options.a},
                    {"b", options.b},
                    {"samples", std::min(options.samples, data->size())},
                    {"layers", nlohmann::json::array()},
                    {"rotated", skipped}};
  for (const auto& [name, layer] : layers)
    outcome.result["layers"].push_back(row_json(name, layer));
  outcome.text = table(outcome.result, options.rows);
  if (!options.html.empty()) {
    write_file_atomically(options.html, page(outcome.result));
    outcome.result["html"] = options.html;
    outcome.text += options.html + "\n";
  }
  if (options.gated && layers.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "compare: --min-sqnr: no layer could be compared",
                "the models share no layer, or an offline rotation changed all of them");
  }
  if (options.gated && !(sqnr(layers[0].second) >= options.minimum)) {
    outcome.exit = kQuality;
    outcome.failure = fmt::format("compare: layer \"{}\": expected at least {} dB, got {:.2f} dB",
                                  layers[0].first, options.minimum, sqnr(layers[0].second));
  }
  return outcome;
}

}  // namespace

Run declare_compare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("a", options->a, "Reference model")->required();
  app.add_option("b", options->b, "Other model")->required();
  declare_data(app, options->data);
  app.add_option("--samples", options->samples, "Items compared")->check(CLI::PositiveNumber);
  app.add_option("--rows", options->rows, "Layers printed")->check(CLI::PositiveNumber);
  app.add_option_function<double>(
      "--min-sqnr",
      [options](double value) {
        options->minimum = value;
        options->gated = true;
      },
      "dB; exit code 6 when a layer is worse");
  app.add_option("--html", options->html, "Write all rows as a page");
  declare_preprocess(app, options->data.preprocess);
  return [options](const Context& context) { return compare(*options, context); };
}

}  // namespace repquant::cli
