// The frame of both programs: verb, common options, signals, the JSON envelope, exit codes.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/exit_codes.h"
#include "cli/program.h"
#include "cli/terminal.h"
#include "repquant/core/fields.h"
#include "repquant/core/machine.h"
#include "repquant/core/version.h"
#include "repquant/runtime/kernels/isa.h"

namespace repquant::cli {
namespace {

using nlohmann::json;

StopFlag stop_flag;  // a signal handler can reach nothing else
volatile std::sig_atomic_t stop_signal = 0;

void on_signal(int number) {
  stop_signal = number;
  stop_flag.raise();
}

// The second one ends at once: SA_RESETHAND.
void install_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write
}

json machine(const Common& common, const ThreadPool* pool) {
  std::string isa = "scalar";
  try {
    isa = runtime::isa_name(runtime::parse_isa(common.isa));
  } catch (const Error&) {  // reported where it is used
  }
  return {{"cpu", cpu_name()},
          {"isa", isa},
          {"threads", pool != nullptr ? pool->size() : common.threads}};
}

// Of "stage: subject: rest": the name in quotes where there is one; of "usage: ..." that alone.
std::string subject_of(const std::string& message, size_t stage_end) {
  const bool usage = message.compare(0, stage_end, "usage") == 0;
  const size_t begin = stage_end + 2, end = message.find(": ", begin);
  const size_t quote = message.find('"', begin);
  if (quote < end || usage) {
    const size_t close = quote == std::string::npos ? quote : message.find('"', quote + 1);
    return close == std::string::npos ? "" : message.substr(quote + 1, close - quote - 1);
  }
  return end == std::string::npos ? "" : message.substr(begin, end - begin);
}

json error_json(const std::string& code, int exit, const std::string& message,
                const std::string& hint) {
  json error = {{"code", code},
                {"exit", exit},
                {"stage", ""},
                {"subject", ""},
                {"message", safe_text(message)},
                {"hint", safe_text(hint)}};
  const size_t first = message.find(": ");
  if (first == std::string::npos) return error;
  error["stage"] = safe_text(message.substr(0, first));
  error["subject"] = safe_text(subject_of(message, first));
  return error;
}

struct Ending {
  int exit = kDone;
  Outcome outcome;
  json error;  // null: it went well
};

std::string envelope(const std::string& verb, const Ending& ending, json machine, json warnings,
                     double seconds) {
  json measurements = json::array();
  for (const Measurement& row : ending.outcome.measurements) {
    measurements.push_back({{"stage", row.stage},
                            {"subject", row.subject},
                            {"metric", row.metric},
                            {"value", row.value}});
  }
  json document = {{"schema", "repquant/1"},
                   {"verb", verb},
                   {"ok", ending.error.is_null()},
                   {"version", kVersion},
                   {"elapsed_s", seconds},
                   {"machine", std::move(machine)},
                   {"result", ending.outcome.result},
                   {"warnings", std::move(warnings)},
                   {"measurements", measurements}};
  if (!ending.error.is_null()) document["error"] = ending.error;
  return document.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

bool asks_for_json(const std::vector<std::string>& words) {
  const auto options_end = std::find(words.begin(), words.end(), "--");
  return std::find(words.begin(), options_end, "--json") != options_end;
}

class Runner {
 public:
  Runner(const char* name, const Command& command, const Parts* parts,
         std::vector<std::string> words)
      : name_(name), command_(command), parts_(parts), words_(std::move(words)) {}

  int run() {
    const auto start = std::chrono::steady_clock::now();
    Ending ending = guarded();
    const Outcome& outcome = ending.outcome;
    if (outcome.exit != kDone) {  // it answered, and the answer is no
      terminal_.finish();
      terminal_.error(outcome.failure, outcome.hint);
      ending.exit = outcome.exit;
      ending.error = error_json(outcome.exit == kQuality ? "quality" : "verify_failed",
                                outcome.exit, outcome.failure, outcome.hint);
    }
    if (ending.exit == kDone && common_.strict && !terminal_.warnings().empty())
      ending.exit = kWarnings;
    terminal_.finish();
    if (help_) return kDone;
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    const std::string text = common_.json
                                 ? envelope(command_.name, ending, machine(common_, pool_.get()),
                                            terminal_.warnings(), spent.count())
                                 : ending.outcome.text;
    if (!Terminal::print(text)) {
      terminal_.error("write: standard output: no space or closed", "");
      return kCapacity;
    }
    return ending.exit;
  }

 private:
  Ending guarded() {
    try {
      return execute();
    } catch (const Interrupted& stopped) {
      const int exit = stop_signal == SIGTERM ? kTerminated : kInterrupted;
      return failed("interrupted", exit, stopped.what(),
                    "run the same command to go on: " + command_line());
    } catch (const Error& error) {
      return failed(code_name(error.code()), exit_code(error.code()), error.what(), error.hint());
    } catch (const std::bad_alloc&) {
      return out_of_memory();
    } catch (const std::exception& error) {
      std::string message = error.what();  // libraries write stack traces behind the first line
      message = message.substr(0, message.find('\n'));
      if (message.find("can't allocate memory") != std::string::npos) return out_of_memory();
      return failed("internal", kInternal, "internal: " + message,
                    "this is a bug: please report the command");
    }
  }

  Ending out_of_memory() {
    return failed("resource_exhausted", kCapacity,
                  common_.memory > 0
                      ? fmt::format("memory: the cap of {} MiB is used up", common_.memory >> 20)
                      : "memory: none left",
                  "use fewer --samples or --threads, or a larger --memory");
  }

  Ending failed(const std::string& code, int exit, const std::string& message,
                const std::string& hint) {
    terminal_.finish();
    terminal_.error(message, hint);
    return {exit, {}, error_json(code, exit, message, hint)};
  }

  Ending execute() {
    CLI::App app(command_.summary, fmt::format("{} {}", name_, command_.name));
    common_.json = asks_for_json(words_);
    declare_common(app, common_);
    const Run run = command_.declare(app);
    const bool help_all = std::erase(words_, "--help-all") > 0;
    if (help_all) words_.emplace_back("--help");
    try {
      std::vector<std::string> reversed(words_.rbegin(), words_.rend());
      app.parse(std::move(reversed));
    } catch (const CLI::CallForHelp&) {
      help_ = true;
      Terminal::print(help_text(app, help_all));
      return {};
    } catch (const CLI::ParseError& error) {
      terminal_.configure(common_);
      return failed("invalid_argument", kUsage, usage_error(app, error, words_),
                    fmt::format("{} {} --help", name_, command_.name));
    }
    terminal_.configure(common_);
    pool_ = std::make_unique<ThreadPool>(common_.threads);
    const Context context{common_, terminal_, *pool_, &stop_flag, parts_};
    return {kDone, run(context), json()};
  }

  std::string command_line() const {
    std::string line = fmt::format("{} {}", name_, command_.name);
    for (const std::string& word : words_) {
      const bool plain = !word.empty() && word.find_first_not_of(
                                              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                              "0123456789_-+=./:,@%") == std::string::npos;
      line += plain ? " " + word : " '" + word + "'";
    }
    return line;
  }

  const char* name_;
  const Command& command_;
  const Parts* parts_;
  std::vector<std::string> words_;
  Common common_;
  Terminal terminal_;
  std::unique_ptr<ThreadPool> pool_;
  bool help_ = false;
};

// Before a verb is known to run; `verb` as it was typed.
int refuse(const std::vector<std::string>& words, const std::string& verb, ErrorCode code,
           const std::string& message, const std::string& hint) {
  Terminal terminal;
  Common common;
  common.no_color = std::find(words.begin(), words.end(), "--no-color") != words.end();
  terminal.configure(common);
  terminal.error(message, hint);
  Ending ending;
  ending.exit = exit_code(code);
  ending.error = error_json(code_name(code), ending.exit, message, hint);
  if (asks_for_json(words) &&
      !Terminal::print(
          envelope(safe_text(verb), ending, machine(common, nullptr), json::array(), 0))) {
    return kCapacity;
  }
  return ending.exit;
}

}  // namespace

int run_program(const char* name, const std::vector<Command>& commands, const Parts* parts,
                int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const std::string help = fmt::format("{} --help", name);
  const size_t verb = find_verb(words);
  if (verb == words.size()) {
    const bool version = std::find(words.begin(), words.end(), "--version") != words.end();
    const bool asked =
        words.empty() || words[0] == "--help" || words[0] == "-h" || words[0] == "--help-all";
    if (version) return Terminal::print(version_text(name, parts)) ? kDone : kCapacity;
    if (asked) return Terminal::print(overview(name, commands)) ? kDone : kCapacity;
    return refuse(words, "", ErrorCode::kInvalidArgument,
                  fmt::format("usage: expected a verb, got \"{}\"", words[0]), help);
  }
  const std::string wanted = words[verb];
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(verb));
  std::vector<std::string> names;
  for (const Command& command : commands) {
    names.emplace_back(command.name);
    if (wanted != command.name) continue;
    if (command.declare == nullptr) {
      return refuse(words, wanted, ErrorCode::kUnsupported,
                    fmt::format("{}: this build has no calibration", wanted),
                    "use the program repquant, built with -DREPQUANT_TORCH=ON");
    }
    install_handlers();
    return Runner(name, command, parts, std::move(words)).run();
  }
  return refuse(words, wanted, ErrorCode::kInvalidArgument,
                "usage: " + unknown_name("verb", wanted, names), help);
}

}  // namespace repquant::cli
