#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

namespace repquant::cli {
namespace {

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != 0;
}

size_t terminal_width() {
  struct winsize size {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

// Length of a valid UTF-8 sequence at `at`, 0 when there is none.
size_t sequence(const std::string& text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const size_t length = lead >= 0xF0 && lead < 0xF5 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (length == 0 || lead >= 0xF5 || at + length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

std::string safe_text(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      const size_t length = sequence(text, i);
      if (length == 0) out += fmt::format("\\x{:02X}", c);
      else out += text.substr(i, length);
      i += std::max<size_t>(length, 1);
      continue;
    }
    if (c < 0x20 || c == 0x7F) out += fmt::format("\\x{:02X}", c);
    else out += text[i];
    ++i;
  }
  return out;
}

void Terminal::configure(const Common& common) {
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  quiet_ = common.quiet || common.log_level == "warn" || common.log_level == "error";
  errors_only_ = common.log_level == "error";
  json_ = common.progress == "json";
  live_ = terminal && !quiet_ && !json_ && common.progress != "plain";
  color_ = is_set("CLICOLOR_FORCE") || (terminal && !is_set("NO_COLOR"));
  if (common.no_color) color_ = false;
}

std::string Terminal::colored(const std::string& text, const char* code) const {
  return color_ ? fmt::format("\033[{}m{}\033[0m", code, text) : text;
}

void Terminal::line(const std::string& text) {
  if (open_line_) std::fputs("\r\033[K", stderr);
  open_line_ = false;
  std::fputs((text + "\n").c_str(), stderr);
}

std::string Terminal::left(double fraction) const {
  if (fraction < 0.02) return "";
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
  const auto seconds = static_cast<int>(spent.count() * (1 - fraction) / fraction);
  return fmt::format("  {:02}:{:02} left", seconds / 60, seconds % 60);
}

void Terminal::progress(const Progress& p) {
  if (json_) {
    const nlohmann::json row = {{"pass", p.pass},
                                {"unit", p.unit},
                                {"subject", p.subject},
                                {"detail", p.detail},
                                {"fraction", p.fraction}};
    line(row.dump());
    return;
  }
  if (quiet_) return;
  if (last_ != p.pass) start_ = std::chrono::steady_clock::now();
  const bool first = last_ != p.pass;
  last_ = p.pass;
  std::string text = fmt::format("{}  {}  {}  {}", p.pass, p.unit, safe_text(p.subject), p.detail);
  while (!text.empty() && text.back() == ' ') text.pop_back();
  if (!live_) {
    // Plain lines are for blocks; items of a data set would be hundreds.
    if (p.unit.rfind("item", 0) != 0 || p.fraction >= 1) line(text);
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (!first && p.fraction < 1 && now - shown_ < std::chrono::milliseconds(100)) return;
  shown_ = now;
  text += left(p.fraction);
  if (const size_t width = terminal_width(); text.size() >= width) text.resize(width - 1);
  std::fputs(("\r\033[K" + text).c_str(), stderr);
  std::fflush(stderr);
  open_line_ = true;
}

void Terminal::layer(const FinishedLayer& row) {
  if (quiet_ || json_) return;
  line(fmt::format("{:<40} {:<16} {:<8} {:>6.1f} dB {:>6.1f} s", row.layer, row.shape, row.bits,
                   row.sqnr_db, row.seconds));
}

void Terminal::warning(const std::string& code, const std::string& subject,
                       const std::string& message, const std::string& hint) {
  if (repeated_[code + subject + message]++ > 0) return;
  warnings_.push_back({{"code", code},
                       {"subject", safe_text(subject)},
                       {"message", safe_text(message)},
                       {"hint", safe_text(hint)}});
  if (errors_only_) return;
  line(fmt::format("{} {}: {}: {}", colored("warning:", "33"), code, safe_text(subject),
                   safe_text(message)));
  if (!hint.empty()) line("  hint: " + safe_text(hint));
}

void Terminal::info(const std::string& message) {
  if (!quiet_ && !json_) line(safe_text(message));
}

void Terminal::error(const std::string& message, const std::string& hint) {
  line(colored("error:", "31") + " " + safe_text(message));
  if (!hint.empty()) line("  hint: " + safe_text(hint));
}

void Terminal::finish() {
  if (open_line_) std::fputs("\r\033[K", stderr);
  open_line_ = false;
  if (errors_only_) return;
  for (const auto& [key, count] : repeated_) {
    if (count > 1) line(fmt::format("warning: {}: {} times", safe_text(key.substr(0, 4)), count));
  }
}

bool Terminal::print(const std::string& text) {
  return std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
}

}  // namespace repquant::cli
