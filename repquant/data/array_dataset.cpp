#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "repquant/core/artifact.h"
#include "repquant/core/error.h"
#include "repquant/core/files.h"
#include "repquant/core/half.h"
#include "repquant/data/dataset_internal.h"
#include "repquant/data/npy.h"

namespace repquant::data_detail {
namespace {

namespace fs = std::filesystem;

enum class Layout { kValues, kGrey, kChannelsFirst, kChannelsLast };

[[noreturn]] void fail(const fs::path& path, const std::string& what,
                       const std::string& hint = {}) {
  throw Error(ErrorCode::kCorruptFile, fmt::format("data: \"{}\": {}", path.string(), what), hint);
}

Layout layout_of(const ArraySource& source, const fs::path& path) {
  const Shape& shape = source.shape;
  if (shape.empty() || shape[0] < 1) {
    fail(path, fmt::format("expected an array of at least one item [N, ...], got shape {}",
                           to_string(shape)));
  }
  switch (source.dtype) {
    case DType::kF16:
    case DType::kF32:
    case DType::kF64:
    case DType::kI32:
    case DType::kI64:
      return Layout::kValues;
    case DType::kU8:
      break;
    default:
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("data: \"{}\": expected float32, float64, float16, uint8 pixels, or "
                              "int32 or int64 tokens, got {}",
                              path.string(), numpy_name(source.dtype)),
                  "save x.astype(numpy.float32)");
  }
  const auto colours = [](int64_t n) { return n == 1 || n == 3; };
  Layout layout = Layout::kValues;
  if (shape.size() == 3) layout = Layout::kGrey;
  if (shape.size() == 4 && colours(shape[1])) layout = Layout::kChannelsFirst;
  else if (shape.size() == 4 && colours(shape[3])) layout = Layout::kChannelsLast;
  const bool sides = std::all_of(shape.begin() + 1, shape.end(),
                                 [](int64_t n) { return n >= 1 && n <= kMaxImageSide; });
  if (layout == Layout::kValues || !sides) {
    fail(path, fmt::format("expected uint8 pixels [N, C, H, W], [N, H, W, C] with C of 1 or 3, or "
                           "[N, H, W], got {}",
                           to_string(shape)));
  }
  return layout;
}

template <class T> bool all_finite(std::span<const T> values) {
  return std::all_of(values.begin(), values.end(), [](T x) { return std::isfinite(x); });
}

template <class T, class F> Tensor converted(const Tensor& stored, F to_float) {
  const std::span<const T> from(static_cast<const T*>(stored.data()),
                                static_cast<size_t>(stored.size()));
  Tensor floats(DType::kF32, stored.shape());
  std::transform(from.begin(), from.end(), floats.as<float>().begin(), to_float);
  return floats;
}

std::span<const std::byte> item_of(const ArraySource& source, int64_t index) {
  REPQUANT_CHECK(index >= 0 && index < source.shape[0]);
  const Shape item(source.shape.begin() + 1, source.shape.end());
  const size_t bytes = static_cast<size_t>(element_count(item)) * size_of(source.dtype);
  return {source.data + static_cast<size_t>(index) * bytes, bytes};
}

// An item that is used as it is; f16 and f64 become f32.
Tensor values_of(const ArraySource& source, int64_t index, const fs::path& path) {
  const std::span<const std::byte> bytes = item_of(source, index);
  Tensor tensor(source.dtype, Shape(source.shape.begin() + 1, source.shape.end()));
  if (!bytes.empty()) std::memcpy(tensor.data(), bytes.data(), bytes.size());
  bool finite = true;
  if (source.dtype == DType::kF64)  // NumPy's default type
    tensor = converted<double>(tensor, [](double x) { return static_cast<float>(x); });
  if (source.dtype == DType::kF16) tensor = converted<uint16_t>(tensor, half_to_float);
  if (tensor.dtype() == DType::kF32) finite = all_finite(std::as_const(tensor).as<float>());
  if (!finite)
    fail(path, fmt::format("expected finite numbers, item {} holds NaN or infinity", index));
  return tensor;
}

class ArrayDataset final : public Dataset {
 public:
  ArrayDataset(ArraySource source, ArrayCompanions companions, std::vector<int64_t> labels,
               std::vector<std::string> class_names, fs::path path, Preprocess preprocess)
      : source_(std::move(source)),
        companions_(std::move(companions)),
        labels_(std::move(labels)),
        class_names_(std::move(class_names)),
        path_(std::move(path)),
        preprocess_(std::move(preprocess)),
        layout_(layout_of(source_, path_)),
        item_(source_.shape.begin() + 1, source_.shape.end()) {
    labels_.resize(static_cast<size_t>(size()), -1);
    if (layout_ != Layout::kValues) check_preprocess(preprocess_);
  }
  int64_t size() const override { return source_.shape[0]; }
  Sample load(int64_t index) const override {
    Tensor input = layout_ == Layout::kValues
                       ? values_of(source_, index, path_)
                       : apply_preprocess(pixels(index), preprocess_, name(index));
    Sample sample{std::move(input), label(index), name(index), {}, {}};
    for (const ArraySource& other : companions_.others)
      sample.others.push_back(values_of(other, index, path_));
    if (companions_.target) sample.target = values_of(*companions_.target, index, path_);
    return sample;
  }
  std::string digest(int64_t index) const override {
    if (companions_.others.empty()) return sha256_hex(item_of(source_, index));
    Sha256 sum;
    sum.update(item_of(source_, index));
    for (const ArraySource& other : companions_.others) sum.update(item_of(other, index));
    return sum.hex();
  }
  bool has_targets() const override { return companions_.target.has_value(); }
  std::string name(int64_t index) const override {
    return fmt::format("{}[{}]", path_.filename().string(), index);
  }
  int64_t label(int64_t index) const override { return labels_.at(static_cast<size_t>(index)); }
  const std::vector<std::string>& class_names() const override { return class_names_; }

 private:
  Image pixels(int64_t index) const {
    const auto* source = reinterpret_cast<const uint8_t*>(item_of(source_, index).data());
    const bool first = layout_ == Layout::kChannelsFirst;
    const int64_t channels = layout_ == Layout::kGrey ? 1 : first ? item_[0] : item_[2];
    const int64_t height = item_[first ? 1 : 0], width = item_[first ? 2 : 1];
    Image image{static_cast<int>(width), static_cast<int>(height), static_cast<int>(channels), {}};
    image.pixels.assign(source, source + element_count(item_));
    if (!first || channels == 1) return image;
    const size_t plane = static_cast<size_t>(width) * static_cast<size_t>(height);
    for (size_t i = 0; i < plane; ++i) {
      for (size_t c = 0; c < 3; ++c) image.pixels[3 * i + c] = source[c * plane + i];
    }
    return image;
  }

  ArraySource source_;
  ArrayCompanions companions_;
  std::vector<int64_t> labels_;
  std::vector<std::string> class_names_;
  fs::path path_;
  Preprocess preprocess_;
  Layout layout_;
  Shape item_;
};

template <class T> std::vector<int64_t> as_labels(const Tensor& tensor) {
  std::vector<int64_t> labels;
  for (const T x : tensor.as<T>()) labels.push_back(static_cast<int64_t>(x));
  return labels;
}

std::vector<int64_t> labels_from_array(const Tensor& tensor, int64_t count, const fs::path& path) {
  std::vector<int64_t> labels;
  switch (tensor.dtype()) {
    case DType::kI64:
      labels = as_labels<int64_t>(tensor);
      break;
    case DType::kI32:
      labels = as_labels<int32_t>(tensor);
      break;
    case DType::kI16:
      labels = as_labels<int16_t>(tensor);
      break;
    case DType::kI8:
      labels = as_labels<int8_t>(tensor);
      break;
    case DType::kU8:
      labels = as_labels<uint8_t>(tensor);
      break;
    case DType::kU16:
      labels = as_labels<uint16_t>(tensor);
      break;
    case DType::kU32:
      labels = as_labels<uint32_t>(tensor);
      break;
    default:
      fail(path, fmt::format("expected \"labels\" of integers, got {}", name_of(tensor.dtype())));
  }
  if (tensor.rank() != 1 || static_cast<int64_t>(labels.size()) != count) {
    fail(path, fmt::format("expected \"labels\" of shape [{}], got {}", count,
                           to_string(tensor.shape())));
  }
  if (std::any_of(labels.begin(), labels.end(), [](int64_t x) { return x < 0; })) {
    fail(path, "expected \"labels\" of 0 or more, got a negative one");
  }
  return labels;
}

std::string pick_array(const std::map<std::string, Tensor>& arrays, const fs::path& path,
                       const DatasetOptions& options) {
  if (options.inputs.size() > 1 && !options.array.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("data: \"{}\": --array names one array, the model has {} inputs",
                            path.string(), options.inputs.size()),
                "name the arrays as the model's inputs");
  }
  std::string names, only;
  int64_t inputs = 0;
  const auto is_target = [&](const std::string& name) {
    return std::find(options.targets.begin(), options.targets.end(), name) !=
           options.targets.end();
  };
  for (const auto& [name, tensor] : arrays) {
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", name.substr(0, 64));
    if (name == "labels" || is_target(name)) continue;
    only = name;
    ++inputs;
  }
  if (names.size() > 400) names = names.substr(0, 400) + "...";
  if (!options.array.empty()) {
    if (arrays.contains(options.array)) return options.array;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("data: \"{}\": expected an array \"{}\", got {}", path.string(),
                            options.array, names));
  }
  if (!options.inputs.empty() && arrays.contains(options.inputs[0])) return options.inputs[0];
  if (options.inputs.size() > 1) {
    fail(path, fmt::format("expected an array \"{}\", an input of the model, got {}",
                           options.inputs[0], names));
  }
  for (const char* usual : {"images", "input", "inputs", "pixels", "x", "data", "arr_0"}) {
    if (arrays.contains(usual)) return usual;
  }
  if (inputs == 1) return only;
  fail(path, fmt::format("expected an array \"images\" or \"input\", got {}",
                         names.empty() ? "none" : names));
}

ArraySource source_of(std::map<std::string, Tensor>& arrays, const std::string& name) {
  auto tensor = std::make_shared<const Tensor>(std::move(arrays[name]));
  return {tensor, static_cast<const std::byte*>(tensor->data()), tensor->dtype(), tensor->shape()};
}

ArraySource companion(std::map<std::string, Tensor>& arrays, const std::string& name, int64_t count,
                      const fs::path& path) {
  if (!arrays.contains(name))
    fail(path, fmt::format("expected an array \"{}\", an input of the model", name));
  ArraySource source = source_of(arrays, name);
  const bool pixels = source.dtype == DType::kU8;
  if (pixels || layout_of(source, path) != Layout::kValues || source.shape[0] != count) {
    fail(path, fmt::format("expected \"{}\" of {} items, numbers and not pixels, got {} {}", name,
                           count, numpy_name(source.dtype), to_string(source.shape)));
  }
  return source;
}

std::unique_ptr<Dataset> open_arrays(std::map<std::string, Tensor> arrays, const fs::path& path,
                                     const DatasetOptions& options) {
  const std::string name = pick_array(arrays, path, options);
  ArraySource source = source_of(arrays, name);
  const int64_t count = source.shape.empty() ? 0 : source.shape[0];
  std::vector<int64_t> labels;
  if (!options.labels.empty()) labels = read_plain_labels(options.labels, count);
  else if (arrays.contains("labels")) labels = labels_from_array(arrays["labels"], count, path);
  ArrayCompanions companions;
  for (size_t i = 1; i < options.inputs.size(); ++i)
    companions.others.push_back(companion(arrays, options.inputs[i], count, path));
  for (const std::string& target : options.targets) {
    if (companions.target || target == name || !arrays.contains(target)) continue;
    companions.target = companion(arrays, target, count, path);
  }
  return make_array_dataset(std::move(source), std::move(companions), std::move(labels), path,
                            options);
}

}  // namespace

std::unique_ptr<Dataset> make_array_dataset(ArraySource source, ArrayCompanions companions,
                                            std::vector<int64_t> labels, const fs::path& path,
                                            const DatasetOptions& options) {
  return std::make_unique<ArrayDataset>(std::move(source), std::move(companions), std::move(labels),
                                        class_names_of(options), path, options.preprocess);
}

std::unique_ptr<Dataset> open_npy(const fs::path& path, const DatasetOptions& options) {
  auto file = std::make_shared<const MappedFile>(path);
  const NpyHeader header = parse_npy_header(file->bytes(), path.string());
  ArraySource source{file, file->bytes().data() + header.data_offset, header.dtype, header.shape};
  std::vector<int64_t> labels;
  if (!options.labels.empty())
    labels = read_plain_labels(options.labels, header.shape.empty() ? 0 : header.shape[0]);
  return make_array_dataset(std::move(source), {}, std::move(labels), path, options);
}

std::unique_ptr<Dataset> open_npz(const fs::path& path, const DatasetOptions& options) {
  return open_arrays(read_npz(path), path, options);
}

std::unique_ptr<Dataset> open_safetensors(const fs::path& path, const DatasetOptions& options) {
  return open_arrays(read_safetensors(path).tensors, path, options);
}

}  // namespace repquant::data_detail
