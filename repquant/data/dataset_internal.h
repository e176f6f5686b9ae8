#pragma once
// One opener a kind of file; open_dataset() chooses, and takes ranges.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "repquant/data/dataset.h"

namespace repquant::data_detail {

std::unique_ptr<Dataset> open_image_folder(const std::filesystem::path& path,
                                           const DatasetOptions& options);
std::unique_ptr<Dataset> open_image_file(const std::filesystem::path& path,
                                         const DatasetOptions& options);
std::unique_ptr<Dataset> open_idx(const std::filesystem::path& path, const DatasetOptions& options);
std::unique_ptr<Dataset> open_npy(const std::filesystem::path& path, const DatasetOptions& options);
std::unique_ptr<Dataset> open_npz(const std::filesystem::path& path, const DatasetOptions& options);
std::unique_ptr<Dataset> open_safetensors(const std::filesystem::path& path,
                                          const DatasetOptions& options);

// "...idx<digit>-ubyte" or "....idx", either may end in ".gz".
bool is_idx_name(const std::filesystem::path& path);

// An array of N items whose elements `owner` keeps alive.
struct ArraySource {
  std::shared_ptr<const void> owner;
  const std::byte* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
};
// What a model reads and is compared with beside its first input; items in the same order.
struct ArrayCompanions {
  std::vector<ArraySource> others;
  std::optional<ArraySource> target;
};
std::unique_ptr<Dataset> make_array_dataset(ArraySource source, ArrayCompanions companions,
                                            std::vector<int64_t> labels,
                                            const std::filesystem::path& path,
                                            const DatasetOptions& options);

// Lines of a label file, 1-based line numbers for messages.
struct LabelLine {
  std::string file;  // empty: the line holds the label alone
  int64_t label = 0;
  int64_t line = 0;
};
std::vector<LabelLine> read_label_file(const std::filesystem::path& path);
// One label a line, exactly `count`.
std::vector<int64_t> read_plain_labels(const std::filesystem::path& path, int64_t count);
std::vector<std::string> class_names_of(const DatasetOptions& options);  // empty when not given

}  // namespace repquant::data_detail
