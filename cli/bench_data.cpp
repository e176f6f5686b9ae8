#include "cli/bench_data.h"

#include <cmath>
#include <fstream>
#include <numbers>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/data/subset.h"

namespace repquant::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kCalibrationItems = 32;

const json& at(const json& object, const char* key) {
  static const json nothing;
  if (!object.is_object()) return nothing;
  const auto found = object.find(key);
  return found == object.end() ? nothing : *found;
}

std::string text(const json& value) { return value.is_string() ? value.get<std::string>() : ""; }

Tensor random_normal(const Shape& shape) {
  Tensor values(DType::kF32, shape);
  Random random(0);
  const auto uniform = [&] { return (static_cast<double>(random.next() >> 11) + 1) * 0x1p-53; };
  for (float& x : values.as<float>()) {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    x = static_cast<float>(radius * std::cos(2 * std::numbers::pi * uniform()));
  }
  return values;
}

// The first `count` items, from the start again where there are fewer.
Tensor repeated(const Tensor& items, int64_t count) {
  Shape shape = items.shape();
  shape[0] = count;
  Tensor result(DType::kF32, shape);
  const auto from = items.as<float>();
  const auto to = result.as<float>();
  for (size_t i = 0; i < to.size(); ++i) to[i] = from[i % from.size()];
  return result;
}

// As `quantize` drew them where the record has them, else as it would draw them.
std::vector<int64_t> calibration_items(const json& record, bool of_record, int64_t size) {
  const json& calibration = at(record, "calibration");
  std::vector<int64_t> items;
  if (of_record && at(calibration, "indices").is_array()) {
    for (const json& index : calibration["indices"]) {
      if (index.is_number_integer() && index >= 0 && index < size)
        items.push_back(index.get<int64_t>());
    }
  }
  if (items.empty()) {
    const json& seed = at(calibration, "seed");
    items = draw_subset(size, std::min(size, kCalibrationItems),
                        seed.is_number_unsigned() ? seed.get<uint64_t>() : 0);
  }
  items.resize(std::min(items.size(), static_cast<size_t>(kCalibrationItems)));
  return items;
}

// Of the record: false when it names no data, or data that is gone.
bool request_of_record(const json& record, DataRequest& request) {
  const json& data = at(at(record, "calibration"), "data");
  if (text(at(data, "path")).empty()) return false;
  request.data = text(at(data, "path"));
  request.options.array = text(at(data, "array"));
  request.options.begin = at(data, "begin").is_number_integer() ? data["begin"].get<int64_t>() : 0;
  request.options.end = at(data, "end").is_number_integer() ? data["end"].get<int64_t>() : -1;
  return fs::exists(request.data.substr(0, request.data.rfind('[')));
}

}  // namespace

json run_record_beside(const fs::path& artifact) {
  fs::path path = artifact;
  path += ".run.json";
  std::ifstream in(path, std::ios::binary);
  json record = in ? json::parse(in, nullptr, false) : json();
  return record.is_object() ? record : json();
}

fs::path find_float_model(const std::string& given, const fs::path& artifact, const json& record) {
  if (!given.empty()) {
    if (fs::exists(given)) return given;
    throw Error(ErrorCode::kNotFound, fmt::format("bench: \"{}\": no such file", given));
  }
  const json& model = at(record, "model");
  const fs::path path = text(at(model, "path")),
                 file = fs::path(text(at(model, "file"))).filename();
  if (!path.empty() && fs::exists(path)) return path;
  if (!file.empty() && fs::exists(artifact.parent_path() / file))
    return artifact.parent_path() / file;
  throw Error(ErrorCode::kInvalidArgument,
              file.empty() ? "bench: float model: expected --float, got no run record beside the "
                             "artifact that names one"
                           : fmt::format("bench: float model: expected --float: \"{}\" of the run "
                                         "record is not where it was",
                                         file.string()),
              "add --float MODEL.onnx");
}

BenchData make_bench_data(DataRequest& request, const json& record, const OpenedModel& model,
                          int64_t batch, bool needed, const Context& context) {
  BenchData data;
  const bool of_record = request.data.empty();
  if (!of_record || request_of_record(record, request)) {
    const auto set = open_data(request, model, context);
    data.calibration = load_batch(*set, calibration_items(record, of_record, set->size()));
    data.source = fmt::format("{} items of {}", data.calibration.shape()[0],
                              of_record ? "the calibration data" : "--data");
  } else {
    if (needed) {
      context.sink.warning(
          "W010", "data",
          "no --data, and no run record that names data still there: int8 models of "
          "onnxruntime are calibrated with random numbers",
          "their speed is what it is, their accuracy is not; add --data");
    }
    Shape shape{kCalibrationItems};
    shape.insert(shape.end(), model.item.begin(), model.item.end());
    data.calibration = random_normal(shape);
    data.source = "random normal numbers";
  }
  const Shape got(data.calibration.shape().begin() + 1, data.calibration.shape().end());
  if (got != model.item) {
    throw Error(ErrorCode::kCorruptFile, fmt::format("bench: data: expected items {}, got {}",
                                                     to_string(model.item), to_string(got)));
  }
  data.input = repeated(data.calibration, batch);
  return data;
}

}  // namespace repquant::cli
