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
  return {{"cpu", cpu_model()},
          {"isa", isa},
          {"threads", pool != nullptr ? pool->size() : common.threads}};
}

// "stage: subject: rest".
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
  const size_t second = message.find(": ", first + 2);
  if (second != std::string::npos)
    error["subject"] = safe_text(message.substr(first + 2, second - first - 2));
  return error;
}

struct Ending {
  int exit = kDone;
  Outcome outcome;
  json error;  // null: it went well
};

class Runner {
 public:
  Runner(const char* name, const Command& command, const Parts* parts,
         std::vector<std::string> words)
      : name_(name), command_(command), parts_(parts), words_(std::move(words)) {}

  int run() {
    const auto start = std::chrono::steady_clock::now();
    Ending ending = guarded();
    if (ending.exit == kDone && ending.error.is_null()) ending.exit = ending.outcome.exit;
    if (ending.exit == kDone && common_.strict && !terminal_.warnings().empty())
      ending.exit = kWarnings;
    terminal_.finish();
    if (help_) return kDone;
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    const std::string text =
        common_.json
            ? envelope(ending, spent.count()).dump(-1, ' ', false, json::error_handler_t::replace) +
                  "\n"
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
      return failed("resource_exhausted", kCapacity, "memory: none left",
                    "use fewer samples or --memory");
    } catch (const std::exception& error) {
      std::string message = error.what();  // libraries write stack traces behind the first line
      message = message.substr(0, message.find('\n'));
      return failed("internal", kInternal, "internal: " + message,
                    "this is a bug: please report the command");
    }
  }

  Ending failed(const std::string& code, int exit, const std::string& message,
                const std::string& hint) {
    terminal_.finish();
    terminal_.error(message, hint);
    return {exit, {}, error_json(code, exit, message, hint)};
  }

  Ending execute() {
    CLI::App app(command_.summary, fmt::format("{} {}", name_, command_.name));
    common_.json = std::find(words_.begin(), words_.end(), "--json") != words_.end();
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

  json envelope(const Ending& ending, double seconds) const {
    json measurements = json::array();
    for (const Measurement& row : ending.outcome.measurements) {
      measurements.push_back({{"stage", row.stage},
                              {"subject", row.subject},
                              {"metric", row.metric},
                              {"value", row.value}});
    }
    json document = {{"schema", "repquant/1"},
                     {"verb", command_.name},
                     {"ok", ending.error.is_null()},
                     {"version", kVersion},
                     {"elapsed_s", seconds},
                     {"machine", machine(common_, pool_.get())},
                     {"result", ending.outcome.result},
                     {"warnings", terminal_.warnings()},
                     {"measurements", measurements}};
    if (!ending.error.is_null()) document["error"] = ending.error;
    return document;
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

int usage(const char* name, const std::string& message, const std::string& hint) {
  Terminal terminal;
  terminal.configure({});
  terminal.error(message, hint.empty() ? fmt::format("{} --help", name) : hint);
  return kUsage;
}

}  // namespace

int run_program(const char* name, const std::vector<Command>& commands, const Parts* parts,
                int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const size_t verb = find_verb(words);
  if (verb == words.size()) {
    const bool version = std::find(words.begin(), words.end(), "--version") != words.end();
    const bool asked =
        words.empty() || words[0] == "--help" || words[0] == "-h" || words[0] == "--help-all";
    if (version) return Terminal::print(version_text(name, parts)) ? kDone : kCapacity;
    if (asked) return Terminal::print(overview(name, commands)) ? kDone : kCapacity;
    return usage(name, fmt::format("expected a verb, got \"{}\"", words[0]), "");
  }
  const std::string wanted = words[verb];
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(verb));
  std::vector<std::string> names;
  for (const Command& command : commands) {
    names.emplace_back(command.name);
    if (wanted != command.name) continue;
    if (command.declare == nullptr) {
      Terminal terminal;
      terminal.error("this build has no calibration",
                     "use the program repquant, built with -DREPQUANT_TORCH=ON");
      return kUnsupported;
    }
    install_handlers();
    return Runner(name, command, parts, std::move(words)).run();
  }
  return usage(name, unknown_name("verb", wanted, names), "");
}

}  // namespace repquant::cli
