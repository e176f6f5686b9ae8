#include "repquant/data/dataset.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/data/dataset_internal.h"

namespace repquant {
namespace {

namespace fs = std::filesystem;

class Range final : public Dataset {
 public:
  Range(std::unique_ptr<Dataset> all, int64_t begin, int64_t end)
      : all_(std::move(all)), begin_(begin), end_(end) {}
  int64_t size() const override { return end_ - begin_; }
  Sample load(int64_t index) const override { return all_->load(at(index)); }
  std::string digest(int64_t index) const override { return all_->digest(at(index)); }
  std::string name(int64_t index) const override { return all_->name(at(index)); }
  int64_t label(int64_t index) const override { return all_->label(at(index)); }
  const std::vector<std::string>& class_names() const override { return all_->class_names(); }
  bool has_targets() const override { return all_->has_targets(); }

 private:
  int64_t at(int64_t index) const {
    REPQUANT_CHECK(index >= 0 && index < size());
    return begin_ + index;
  }

  std::unique_ptr<Dataset> all_;
  int64_t begin_, end_;
};

bool parse_count(std::string_view text, int64_t& value) {
  if (text.empty()) return true;  // keeps the default
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && value >= 0;
}

// "folder[0:200]" -> "folder" and the range; anything else stays as it is.
fs::path split_range(const fs::path& path, DatasetOptions& options) {
  const std::string text = path.string();
  const size_t open = text.rfind('['), colon = text.rfind(':');
  if (text.empty() || text.back() != ']' || open == std::string::npos || open == 0 ||
      colon == std::string::npos || colon < open) {
    return path;
  }
  int64_t begin = 0, end = -1;
  const std::string_view view = text;
  if (!parse_count(view.substr(open + 1, colon - open - 1), begin) ||
      !parse_count(view.substr(colon + 1, text.size() - colon - 2), end)) {
    return path;
  }
  if (options.begin != 0 || options.end != -1) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("data: \"{}\": expected one range, got two", text));
  }
  options.begin = begin;
  options.end = end;
  return fs::path(text.substr(0, open));
}

std::unique_ptr<Dataset> open_all(const fs::path& path, const DatasetOptions& options) {
  using namespace data_detail;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    throw Error(
        ErrorCode::kNotFound,
        fmt::format("data: \"{}\": expected a folder or file, got nothing there", path.string()));
  }
  const std::string extension = path.extension().string();
  if (options.inputs.size() > 1 && extension != ".npz" && extension != ".safetensors") {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("data: \"{}\": expected .npz or .safetensors with an array for each of "
                            "the model's {} inputs",
                            path.string(), options.inputs.size()),
                fmt::format("numpy.savez(\"data.npz\", {}=..., {}=...)", options.inputs[0],
                            options.inputs[1]));
  }
  if (fs::is_directory(status)) return open_image_folder(path, options);
  if (has_image_extension(path)) return open_image_file(path, options);
  if (extension == ".npy") return open_npy(path, options);
  if (extension == ".npz") return open_npz(path, options);
  if (extension == ".safetensors") return open_safetensors(path, options);
  if (is_idx_name(path)) return open_idx(path, options);
  throw Error(
      ErrorCode::kUnsupported,
      fmt::format(
          "data: \"{}\": expected a folder of images, an image, IDX (...idx3-ubyte[.gz]), .npy, "
          ".npz or .safetensors",
          path.string()));
}

}  // namespace

std::unique_ptr<Dataset> open_dataset(const fs::path& path, const DatasetOptions& given) {
  DatasetOptions options = given;
  std::error_code error;
  const fs::path plain = fs::exists(path, error) ? path : split_range(path, options);
  std::unique_ptr<Dataset> all = open_all(plain, options);
  const int64_t size = all->size();
  const int64_t end = options.end < 0 ? size : options.end;
  if (options.begin < 0 || options.begin >= end || end > size) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("data: \"{}\": expected a range within its {} items, got [{}:{}]",
                            plain.string(), size, options.begin, end));
  }
  if (options.begin == 0 && end == size) return all;
  return std::make_unique<Range>(std::move(all), options.begin, end);
}

std::vector<Tensor> load_inputs(const Dataset& dataset, std::span<const int64_t> indices) {
  std::vector<Tensor> batch;
  const auto put = [&](const Tensor& item, size_t input, size_t i) {
    if (i == 0) {
      Shape shape{static_cast<int64_t>(indices.size())};
      shape.insert(shape.end(), item.shape().begin(), item.shape().end());
      batch.emplace_back(item.dtype(), shape);
    }
    Tensor& all = batch.at(input);
    const Shape first(all.shape().begin() + 1, all.shape().end());
    if (item.shape() != first || item.dtype() != all.dtype()) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("data: \"{}\": expected shape {} as \"{}\" has, got {}",
                              dataset.name(indices[i]), to_string(first), dataset.name(indices[0]),
                              to_string(item.shape())),
                  "pass --crop to make them equal");
    }
    if (item.bytes() > 0)
      std::memcpy(static_cast<std::byte*>(all.data()) + i * item.bytes(), item.data(),
                  item.bytes());
  };
  for (size_t i = 0; i < indices.size(); ++i) {
    const Sample sample = dataset.load(indices[i]);
    put(sample.input, 0, i);
    for (size_t k = 0; k < sample.others.size(); ++k) put(sample.others[k], k + 1, i);
  }
  return batch;
}

Tensor load_batch(const Dataset& dataset, std::span<const int64_t> indices) {
  std::vector<Tensor> inputs = load_inputs(dataset, indices);
  return inputs.empty() ? Tensor() : std::move(inputs[0]);
}

}  // namespace repquant
