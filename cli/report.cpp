// repquant report: what a run measured.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/program.h"
#include "repquant/core/error.h"
#include "repquant/core/files.h"
#include "repquant/core/strict_json.h"
#include "repquant/report/html.h"
#include "repquant/report/record.h"

namespace repquant::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string run, format = "md", out;
};

// A run record, an artifact (its record lies beside it), or a folder with one record.
fs::path find_record(const fs::path& given) {
  if (fs::is_directory(given)) {
    std::vector<fs::path> records;
    for (const auto& entry : fs::directory_iterator(given)) {
      if (entry.path().filename().string().ends_with(".run.json")) records.push_back(entry.path());
    }
    if (records.size() == 1) return records[0];
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("report: \"{}\": expected one *.run.json, got {}", given.string(),
                            records.size()));
  }
  fs::path beside = given;
  beside += ".run.json";
  return fs::exists(beside) ? beside : given;
}

nlohmann::json read_record(const fs::path& path) {
  const std::vector<std::byte> bytes = read_file(path);
  nlohmann::json record =
      parse_strict_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                        fmt::format("report: \"{}\"", path.string()));
  if (report::is_record(record)) return record;
  throw Error(ErrorCode::kCorruptFile,
              fmt::format("report: \"{}\": expected a run record, got other JSON", path.string()),
              "`repquant quantize` leaves one beside the artifact, OUT.run.json");
}

std::string render(const nlohmann::json& record, const std::string& format) {
  if (format == "json") return record.dump(1) + "\n";
  return format == "md" ? markdown_report(record) : html_report(record);
}

Outcome report(const Options& options, const Context&) {
  const fs::path path = find_record(options.run);
  const nlohmann::json record = read_record(path);
  Outcome outcome;
  outcome.result = {{"record", path.string()}, {"format", options.format}};
  outcome.text = render(record, options.format);
  if (options.out.empty() || options.out == "-") {
    outcome.result["text"] = outcome.text;
    return outcome;
  }
  write_file_atomically(options.out, outcome.text);
  outcome.result["file"] = options.out;
  outcome.text = options.out + "\n";
  return outcome;
}

}  // namespace

Run declare_report(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("run", options->run, "Artifact, its .run.json, or the folder that holds it")
      ->required();
  app.add_option("--format", options->format, "md, html or json")
      ->check(one_of({"md", "html", "json"}));
  app.add_option("-o,--output", options->out, "File; default standard output, as -");
  return [options](const Context& context) { return report(*options, context); };
}

}  // namespace repquant::cli
