// repquant completion: what shells need to complete verbs, options and files.
#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/program.h"

namespace repquant::cli {
namespace {

// The program is asked for its verbs and options, so the scripts never grow old. %P: its name, %F:
// the same as a name of functions.
constexpr const char* kBash = R"sh(# %P: eval "$(%P completion bash)"
_%F() {
  local word="${COMP_WORDS[COMP_CWORD]}" verb="${COMP_WORDS[1]}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "$(%P | sed -n 's/^  \([a-z]*\) .*/\1/p') --help --version" -- "$word"))
  elif [ "${word#-}" != "$word" ]; then
    COMPREPLY=($(compgen -W "$(%P "$verb" --help-all 2> /dev/null |
      sed -n 's/^  \(-[a-zA-Z],\)\{0,1\}\(--[a-z-]*\).*/\2/p')" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _%F %P
)sh";

constexpr const char* kZsh = R"sh(#compdef %P
# %P: eval "$(%P completion zsh)"
_%F() {
  if (( CURRENT == 2 )); then
    compadd -- ${(f)"$(%P | sed -n 's/^  \([a-z]*\) .*/\1/p')"} --help --version
  elif [[ "$PREFIX" == -* ]]; then
    compadd -- ${(f)"$(%P "${words[2]}" --help-all 2> /dev/null |
      sed -n 's/^  \(-[a-zA-Z],\)\{0,1\}\(--[a-z-]*\).*/\2/p')"}
  else
    _files
  fi
}
compdef _%F %P
)sh";

constexpr const char* kFish = R"sh(# %P: %P completion fish | source
function __%F_verbs
  %P | sed -n 's/^  \([a-z]*\)  *\(.*\)/\1\t\2/p'
end
function __%F_options
  set -l words (commandline -opc)
  test (count $words) -gt 1; or return
  %P $words[2] --help-all 2> /dev/null | sed -n 's/^  \(-[a-zA-Z],\)\{0,1\}\(--[a-z-]*\).*/\2/p'
end
complete -c %P -n 'test (count (commandline -opc)) -eq 1' -f -a '(__%F_verbs)'
complete -c %P -n 'string match -q -- "-*" (commandline -ct)' -f -a '(__%F_options)'
)sh";

std::string filled(std::string text, const std::string& program) {
  std::string function = program;
  for (char& c : function) c = c == '-' ? '_' : c;
  for (const auto& [mark, value] : {std::pair{"%P", program}, std::pair{"%F", function}}) {
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at))
      text.replace(at, 2, value);
  }
  return text;
}

}  // namespace

Run declare_completion(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  app.add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(one_of({"bash", "zsh", "fish"}));
  const std::string program = app.get_name().substr(0, app.get_name().find(' '));
  return [shell, program](const Context&) {
    Outcome outcome;
    const char* script = *shell == "bash" ? kBash : *shell == "zsh" ? kZsh : kFish;
    outcome.text = filled(script, program);
    outcome.result = {{"shell", *shell}, {"script", outcome.text}};
    return outcome;
  };
}

}  // namespace repquant::cli
