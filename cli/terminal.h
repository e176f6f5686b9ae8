#pragma once
// Everything people see while a command runs: standard error.
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "cli/command.h"

namespace repquant::cli {

class Terminal final : public Sink {
 public:
  void configure(const Common& common);
  void progress(const Progress& progress) override;
  void layer(const FinishedLayer& layer) override;
  void warning(const std::string& code, const std::string& subject, const std::string& message,
               const std::string& hint) override;
  void info(const std::string& message) override;
  void error(const std::string& message, const std::string& hint);
  void finish();  // ends the live line, counts repeated warnings
  const nlohmann::json& warnings() const { return warnings_; }
  // Failed lines of standard error are nobody's problem; this is for standard output.
  static bool print(const std::string& text);

 private:
  void line(const std::string& text);
  std::string colored(const std::string& text, const char* code) const;
  std::string left(double fraction) const;

  bool live_ = false, json_ = false, quiet_ = false, color_ = false, errors_only_ = false;
  bool open_line_ = false;
  std::string last_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), shown_{};
  nlohmann::json warnings_ = nlohmann::json::array();
  std::map<std::string, int> repeated_;
};

// Control characters and bytes that are not UTF-8 as \xNN.
std::string safe_text(const std::string& text);

}  // namespace repquant::cli
