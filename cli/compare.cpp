// repquant compare: two models layer by layer.
#include <map>

#include <fmt/format.h>
#include <cmath>

#include "cli/commands.h"
#include "cli/data_options.h"
#include "cli/exit_codes.h"
#include "repquant/core/error.h"

namespace repquant::cli {
namespace {

struct Options {
  std::string a, b;
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
  std::vector<double> values;
};

Kept keep(ConstTensorView value) {
  Kept kept{value.dtype, {}};
  if (value.dtype == DType::kU8)
    kept.values.assign(value.as<uint8_t>().begin(), value.as<uint8_t>().end());
  if (value.dtype == DType::kF32)
    kept.values.assign(value.as<float>().begin(), value.as<float>().end());
  return kept;
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

// Layers that both have under one name, with results of one type and size.
std::vector<std::pair<std::string, Layer>> measure(const OpenedModel& a, const OpenedModel& b,
                                                   const Dataset& data, const Options& options,
                                                   const Context& context) {
  std::vector<std::pair<std::string, Layer>> layers;
  std::map<std::string, size_t> places;
  for (int64_t i = 0; i < std::min(options.samples, data.size()); ++i) {
    if (context.stop->raised()) throw Interrupted("compare: interrupted");
    const std::vector<int64_t> index{i};
    const Tensor item = load_batch(data, index);
    std::map<std::string, Kept> first;
    a.trace(item,
            [&](const std::string& name, ConstTensorView value) { first[name] = keep(value); });
    b.trace(item, [&](const std::string& name, ConstTensorView value) {
      const auto found = first.find(name);
      if (found == first.end() || found->second.dtype != value.dtype || value.size() == 0) return;
      const Kept other = keep(value);
      if (other.values.empty() || other.values.size() != found->second.values.size()) return;
      if (places.emplace(name, layers.size()).second) layers.emplace_back(name, Layer{});
      accumulate(layers[places[name]].second, found->second, other);
    });
  }
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

Outcome compare(Options& options, const Context& context) {
  const OpenedModel a = open_model(options.a, context), b = open_model(options.b, context);
  const auto data = open_data(options.data, a.preprocess ? a : b, context);
  auto layers = measure(a, b, *data, options, context);
  std::stable_sort(layers.begin(), layers.end(),
                   [](const auto& x, const auto& y) { return sqnr(x.second) < sqnr(y.second); });
  Outcome outcome;
  outcome.result = {{"a", options.a},
                    {"b", options.b},
                    {"samples", std::min(options.samples, data->size())},
                    {"layers", nlohmann::json::array()}};
  outcome.text =
      fmt::format("{:<40} {:>9} {:>9} {:>10}\n", "layer", "SQNR dB", "cosine", "different");
  for (const auto& [name, layer] : layers) {
    const nlohmann::json row = row_json(name, layer);
    if (static_cast<int64_t>(outcome.result["layers"].size()) < options.rows) {
      outcome.text += fmt::format(
          "{:<40} {:>9.2f} {:>9.6f} {:>8.2f} %\n", name, sqnr(layer), row["cosine"].get<double>(),
          100.0 * static_cast<double>(layer.different) / static_cast<double>(layer.elements));
    }
    outcome.result["layers"].push_back(row);
    if (options.gated && sqnr(layer) < options.minimum) outcome.exit = kQuality;
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
  declare_preprocess(app, options->data.preprocess);
  return [options](const Context& context) { return compare(*options, context); };
}

}  // namespace repquant::cli
