// Common options, help and usage errors.
#include <algorithm>
#include <cctype>
#include <charconv>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/exit_codes.h"
#include "cli/program.h"
#include "repquant/core/fields.h"
#include "repquant/core/machine.h"
#include "repquant/core/version.h"

namespace repquant::cli {

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return kUsage;
    case ErrorCode::kCorruptFile:
    case ErrorCode::kNotFound:
      return kInput;
    case ErrorCode::kUnsupported:
      return kUnsupported;
    case ErrorCode::kResourceExhausted:
      return kCapacity;
    case ErrorCode::kVerifyFailed:
      return kVerifyFailed;
    case ErrorCode::kInternal:
      break;
  }
  return kInternal;
}

const char* code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kCorruptFile:
      return "corrupt_file";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kResourceExhausted:
      return "resource_exhausted";
    case ErrorCode::kVerifyFailed:
      return "verify_failed";
    case ErrorCode::kInternal:
      break;
  }
  return "internal";
}

uint64_t parse_size(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string unit(end, text.data() + text.size());
  const std::vector<std::pair<std::string, double>> units{
      {"", 1},
      {"B", 1},
      {"KB", 1e3},
      {"MB", 1e6},
      {"GB", 1e9},
      {"KiB", 1024},
      {"MiB", 1048576},
      {"GiB", 1073741824},
      {"%", static_cast<double>(memory_bytes()) / 100}};
  for (const auto& [name, factor] : units) {
    if (error == std::errc() && name == unit && value > 0 && value * factor < 1e18) {
      return static_cast<uint64_t>(value * factor);
    }
  }
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("usage: size \"{}\": expected a number with KiB, MiB, GiB, KB, MB, GB or %",
                  text));
}

CLI::Validator one_of(std::vector<std::string> names) {
  return CLI::Validator(
      [names = std::move(names)](const std::string& text) -> std::string {
        if (std::find(names.begin(), names.end(), text) != names.end()) return "";
        if (const auto near = nearest(text, names); !near.empty())
          return unknown_name("value", text, names);
        return fmt::format("unknown value \"{}\"; expected {}", text, fmt::join(names, ", "));
      },
      "");
}

void declare_common(CLI::App& app, Common& common) {
  const std::string group = "Common";
  app.set_help_flag("-h,--help", "Print this and stop")->group(group);
  app.add_flag("--json", common.json, "One JSON document on standard output")->group(group);
  app.add_option("--threads", common.threads, "Threads (default: what the machine has)")
      ->envname("REPQUANT_THREADS")
      ->check(CLI::Range(1, 1024))
      ->group(group);
  app.add_option("--isa", common.isa, "Instruction set of the kernels")->group(group);
  app.add_option_function<std::string>(
         "--memory", [&common](const std::string& text) { common.memory = parse_size(text); },
         "Cap on memory, for example 2GiB or 80%")
      ->group(group);
  app.add_flag("--strict", common.strict, "Warnings end with exit code 5")->group(group);
  app.add_flag("-q,--quiet", common.quiet, "Warnings and errors only")->group(group);
  app.add_flag("-v,--verbose", common.verbose, "Say more")->group(group);
  app.add_option("--log-level", common.log_level, "error, warn, info or debug")
      ->check(one_of({"error", "warn", "info", "debug"}))
      ->group(group);
  app.add_option("--progress", common.progress,
                 "auto, plain or json (a line each, on standard error)")
      ->check(one_of({"auto", "plain", "json"}))
      ->group(group);
  app.add_flag("--no-color", common.no_color, "No colour")->group(group);
}

size_t find_verb(const std::vector<std::string>& words) {
  const std::vector<std::string> valued{"--threads", "--isa", "--memory", "--log-level",
                                        "--progress"};
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].empty() || words[i][0] != '-') return i;
    if (std::find(valued.begin(), valued.end(), words[i]) != valued.end()) ++i;
  }
  return words.size();
}

std::string usage_error(const CLI::App& app, const CLI::ParseError& error,
                        const std::vector<std::string>& words) {
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    for (const std::string& name : option->get_snames()) known.push_back("-" + name);
  }
  // First: with an option misspelt, something required may seem to be missing.
  for (const std::string& word : words) {
    if (word == "--") break;
    const std::string name = word.substr(0, word.find('='));
    const bool option = name.size() > 1 && name[0] == '-' && name[1] != '.' &&
                        std::isdigit(static_cast<unsigned char>(name[1])) == 0;
    if (option && std::find(known.begin(), known.end(), name) == known.end())
      return "usage: " + unknown_name("option", name, known);
  }
  std::string message = error.what();
  std::replace(message.begin(), message.end(), '\n', ' ');
  while (!message.empty() && message.back() == ' ') message.pop_back();
  return "usage: " + message;
}

std::string help_text(CLI::App& app, bool all) {
  for (CLI::Option* option : app.get_options()) {
    const bool common = option->get_group() == "Common" || option->get_group() == "Preprocessing";
    if (common && !all) option->group("");
    for (int i = 0; i < 2; ++i) {  // ranges and choices are in the text already
      try {
        option->get_validator(i)->description("");
      } catch (const CLI::OptionNotFound&) {
        break;
      }
    }
  }
  app.get_formatter()->column_width(26);
  std::string text = app.help();
  for (size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
  while (text.ends_with("\n\n")) text.pop_back();
  return all ? text
             : text +
                   "\n--help-all adds the common options (--json, --threads, ...) and "
                   "preprocessing.\n";
}

std::string overview(const char* name, const std::vector<Command>& commands) {
  std::string text =
      fmt::format("{} {}: low-bit integer transformers from float ones\n\n", name, kVersion);
  for (const Command& command : commands) {
    if (command.declare != nullptr)
      text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  }
  return text +
         fmt::format("\n{} VERB --help shows the options of a verb; --version the build.\n", name);
}

std::string version_text(const char* name, const Parts* parts) {
  std::string text = fmt::format("{} {}", name, kVersion);
  if (!commit().empty()) text += fmt::format(" ({})", commit());
  text += parts != nullptr ? fmt::format(", {}", parts->library_versions()) : ", no calibration";
#if defined(__clang__)
  text += fmt::format(", clang {}", __clang_version__);
#elif defined(__GNUC__)
  text += fmt::format(", gcc {}", __VERSION__);
#endif
  return text + "\n";
}

}  // namespace repquant::cli
