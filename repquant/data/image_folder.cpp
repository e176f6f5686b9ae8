#include <algorithm>
#include <fstream>
#include <map>
#include <system_error>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/fields.h"
#include "repquant/core/files.h"
#include "repquant/data/dataset_internal.h"

namespace repquant::data_detail {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kFileLimit = 1ull << 30;
constexpr int kDeepest = 16;  // deeper: a link to a folder above

class ImageFiles final : public Dataset {
 public:
  ImageFiles(fs::path root, std::vector<std::string> names, std::vector<int64_t> labels,
             std::vector<std::string> class_names, Preprocess preprocess)
      : root_(std::move(root)),
        names_(std::move(names)),
        labels_(std::move(labels)),
        class_names_(std::move(class_names)),
        preprocess_(std::move(preprocess)) {
    labels_.resize(names_.size(), -1);
  }
  int64_t size() const override { return static_cast<int64_t>(names_.size()); }
  Sample load(int64_t index) const override {
    const fs::path path = path_of(index);
    const Image image = decode_image(read_file(path, kFileLimit), path.string());
    return {apply_preprocess(image, preprocess_, path.string()), label(index), name(index)};
  }
  std::string digest(int64_t index) const override {
    return sha256_hex(read_file(path_of(index), kFileLimit));
  }
  std::string name(int64_t index) const override { return names_.at(static_cast<size_t>(index)); }
  int64_t label(int64_t index) const override { return labels_.at(static_cast<size_t>(index)); }
  const std::vector<std::string>& class_names() const override { return class_names_; }

 private:
  fs::path path_of(int64_t index) const {
    return root_ / fs::path(names_.at(static_cast<size_t>(index)));
  }

  fs::path root_;
  std::vector<std::string> names_;
  std::vector<int64_t> labels_;
  std::vector<std::string> class_names_;
  Preprocess preprocess_;
};

struct Listing {
  std::vector<std::string> images;   // relative, "/" between parts, sorted
  std::vector<std::string> folders;  // first level, sorted
  int64_t other_files = 0;
};

bool hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

[[noreturn]] void unreadable(const fs::path& path, const std::error_code& error) {
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("data: \"{}\": expected a readable folder, got {}", path.string(),
                          error.message()));
}

// Links to folders are followed: the classes of a subset often are links.
Listing list_folder(const fs::path& root) {
  Listing listing;
  std::error_code error;
  fs::recursive_directory_iterator it(root, fs::directory_options::follow_directory_symlink, error),
      end;
  if (error) unreadable(root, error);
  for (; it != end; it.increment(error)) {
    const bool folder = it->is_directory(error);
    if (it.depth() > kDeepest) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("data: \"{}\": expected sub-folders at most {} deep, got \"{}\"",
                              root.string(), kDeepest, it->path().string()),
                  "is there a link to a folder above?");
    }
    if (hidden(it->path())) {
      if (folder) it.disable_recursion_pending();
    } else if (folder) {
      if (it.depth() == 0) listing.folders.push_back(it->path().filename().string());
    } else if (has_image_extension(it->path())) {
      listing.images.push_back(it->path().lexically_relative(root).generic_string());
    } else {
      ++listing.other_files;
    }
    error.clear();
  }
  if (error) unreadable(root, error);
  std::sort(listing.images.begin(), listing.images.end());
  std::sort(listing.folders.begin(), listing.folders.end());
  return listing;
}

// What stands in place of an image, or nothing. Decoding comes later; this finds wrong files early.
std::string first_look(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::exists(status) && !fs::is_regular_file(status)) return "a pipe or device";
  std::ifstream file(path, std::ios::binary);
  std::byte head[8];
  file.read(reinterpret_cast<char*>(head), sizeof head);
  if (file.bad() || (!file && !file.eof())) return "a file that cannot be read";
  const auto count = static_cast<size_t>(file.gcount());
  if (count == 0) return "an empty file";
  return sniff_image(std::span<const std::byte>(head, count)) == ImageKind::kUnknown
             ? "something else"
             : "";
}

void check_files(const fs::path& root, const std::vector<std::string>& names) {
  std::string message;
  int64_t others = -1;
  for (const std::string& name : names) {
    const fs::path path = root / fs::path(name);
    const std::string got = first_look(path);
    if (got.empty()) continue;
    if (message.empty()) {
      message =
          fmt::format("data: \"{}\": expected a JPEG or PNG image, got {}", path.string(), got);
    }
    ++others;
  }
  if (message.empty()) return;
  if (others > 0)
    message += fmt::format("; so do {} other file{} of the folder", others, others == 1 ? "" : "s");
  throw Error(ErrorCode::kCorruptFile, message, "remove what is not an image");
}

[[noreturn]] void throw_empty(const fs::path& root, const Listing& listing) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root, error)) {
    if (is_idx_name(entry.path())) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("data: \"{}\": expected images, got a folder of IDX files", root.string()),
          fmt::format("name the images file, for example {}", entry.path().string()));
    }
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("data: \"{}\": expected JPEG or PNG images, got {}", root.string(),
                          listing.other_files == 0
                              ? std::string("an empty folder")
                              : fmt::format("none among {} files", listing.other_files)));
}

std::vector<int64_t> labels_from_file(const fs::path& file, const fs::path& root,
                                      const std::vector<std::string>& names) {
  const auto fail = [&](const std::string& what, const std::string& hint = {}) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("data: labels \"{}\": {}", file.string(), what), hint);
  };
  std::map<std::string, int64_t> index;
  for (size_t i = 0; i < names.size(); ++i) index[names[i]] = static_cast<int64_t>(i);
  std::vector<int64_t> labels(names.size(), -1);
  size_t count = 0;
  for (const LabelLine& row : read_label_file(file)) {
    const auto found = index.find(row.file);
    if (row.file.empty())
      fail(fmt::format("line {}: expected \"file label\", got one word", row.line));
    if (found == index.end()) {
      fail(fmt::format("line {}: \"{}\" is not in \"{}\"", row.line, row.file, root.string()));
    }
    int64_t& label = labels[static_cast<size_t>(found->second)];
    if (label >= 0) fail(fmt::format("line {}: \"{}\" has a label already", row.line, row.file));
    label = row.label;
    ++count;
  }
  if (count != names.size()) {
    const auto first = std::find(labels.begin(), labels.end(), -1) - labels.begin();
    fail(fmt::format("expected a label for each of {} images, got {}; \"{}\" has none",
                     names.size(), count, names[static_cast<size_t>(first)]));
  }
  return labels;
}

// Every image lies in a sub-folder: the sub-folder is its class.
std::vector<int64_t> labels_from_folders(const fs::path& root, const Listing& listing,
                                         const std::vector<std::string>& classes) {
  std::vector<int64_t> labels;
  for (const std::string& name : listing.images) {
    const std::string folder = name.substr(0, name.find('/'));
    const auto found = std::find(classes.begin(), classes.end(), folder);
    if (found == classes.end()) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("data: \"{}\": {}", root.string(), unknown_name("class", folder, classes)),
          "the sub-folders must be named as in --class-names");
    }
    labels.push_back(found - classes.begin());
  }
  return labels;
}

}  // namespace

std::unique_ptr<Dataset> open_image_folder(const fs::path& root, const DatasetOptions& options) {
  check_preprocess(options.preprocess);
  const Listing listing = list_folder(root);
  if (listing.images.empty()) throw_empty(root, listing);
  check_files(root, listing.images);
  const auto nested =
      std::count_if(listing.images.begin(), listing.images.end(),
                    [](const std::string& name) { return name.find('/') != std::string::npos; });
  std::vector<std::string> classes = class_names_of(options);
  std::vector<int64_t> labels;
  fs::path file = options.labels;
  if (file.empty() && fs::is_regular_file(root / "labels.txt")) file = root / "labels.txt";
  if (!file.empty()) {
    labels = labels_from_file(file, root, listing.images);
  } else if (nested == static_cast<int64_t>(listing.images.size())) {
    if (classes.empty()) classes = listing.folders;
    labels = labels_from_folders(root, listing, classes);
  } else if (nested > 0) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format(
            "data: \"{}\": expected images either in the folder or in sub-folders, got {} and {}",
            root.string(), static_cast<int64_t>(listing.images.size()) - nested, nested),
        "pass --labels with a line for each, or one of the sub-folders");
  }
  return std::make_unique<ImageFiles>(root, listing.images, std::move(labels), std::move(classes),
                                      options.preprocess);
}

std::unique_ptr<Dataset> open_image_file(const fs::path& path, const DatasetOptions& options) {
  check_preprocess(options.preprocess);
  const fs::path root = path.parent_path();
  const std::vector<std::string> names{path.filename().string()};
  check_files(root, names);
  std::vector<int64_t> labels;
  if (!options.labels.empty()) labels = labels_from_file(options.labels, root, names);
  return std::make_unique<ImageFiles>(root, names, std::move(labels), class_names_of(options),
                                      options.preprocess);
}

}  // namespace repquant::data_detail
