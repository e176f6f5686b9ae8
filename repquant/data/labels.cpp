#include <charconv>

#include <fmt/format.h>

#include "repquant/core/error.h"
#include "repquant/core/files.h"
#include "repquant/data/dataset_internal.h"

namespace repquant {
namespace {

constexpr uint64_t kTextLimit = 256ull << 20;
constexpr int64_t kLabelLimit = 1'000'000'000;

// Without line ends and byte order mark; the last line may lack its end.
std::vector<std::string> read_lines(const std::filesystem::path& path) {
  const std::vector<std::byte> bytes = read_file(path, kTextLimit);
  std::vector<std::string> lines;
  std::string line;
  for (const std::byte b : bytes) {
    const char c = static_cast<char>(b);
    if (c == '\n') {
      lines.push_back(std::move(line));
      line.clear();
    } else if (c != '\r') {
      line += c;
    }
  }
  if (!line.empty()) lines.push_back(std::move(line));
  if (!lines.empty() && lines[0].starts_with("\xEF\xBB\xBF")) lines[0].erase(0, 3);
  return lines;
}

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace

namespace data_detail {

std::vector<LabelLine> read_label_file(const std::filesystem::path& path) {
  std::vector<LabelLine> rows;
  const std::vector<std::string> lines = read_lines(path);
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string line = trimmed(lines[i]);
    if (line.empty()) continue;
    LabelLine row;
    row.line = static_cast<int64_t>(i) + 1;
    const size_t space = line.find_last_of(" \t");
    const std::string number = space == std::string::npos ? line : line.substr(space + 1);
    if (space != std::string::npos) row.file = trimmed(line.substr(0, space));
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), row.label);
    if (error != std::errc{} || end != number.data() + number.size() || row.label < 0 ||
        row.label > kLabelLimit) {
      throw Error(
          ErrorCode::kCorruptFile,
          fmt::format(
              "data: labels \"{}\": line {}: expected \"file label\" with a label of 0 or more, "
              "got \"{}\"",
              path.string(), row.line, line));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<int64_t> read_plain_labels(const std::filesystem::path& path, int64_t count) {
  std::vector<int64_t> labels;
  for (const LabelLine& row : read_label_file(path)) {
    if (!row.file.empty()) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("data: labels \"{}\": line {}: expected one number, got two words",
                              path.string(), row.line));
    }
    labels.push_back(row.label);
  }
  if (static_cast<int64_t>(labels.size()) != count) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("data: labels \"{}\": expected {} labels, one an item, got {}",
                            path.string(), count, labels.size()));
  }
  return labels;
}

std::vector<std::string> class_names_of(const DatasetOptions& options) {
  return options.class_names.empty() ? std::vector<std::string>{}
                                     : read_class_names(options.class_names);
}

}  // namespace data_detail

std::vector<std::string> read_class_names(const std::filesystem::path& path) {
  std::vector<std::string> names = read_lines(path);
  while (!names.empty() && trimmed(names.back()).empty()) names.pop_back();
  for (std::string& name : names) name = trimmed(name);
  if (names.empty()) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("data: class names \"{}\": expected one name a line, got an empty file",
                            path.string()));
  }
  return names;
}

}  // namespace repquant
