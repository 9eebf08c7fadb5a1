// quern completion: scripts for shells, made from the table of commands and their options.

#include <CLI/CLI.hpp>
#include <memory>

#include "runtime/tools/command.h"
#include "runtime/tools/error.h"
#include "runtime/tools/flags.h"
#include "runtime/tools/output.h"

namespace quern::tools {
namespace {

/// What a shell needs to know of an option.
struct OptionFacts {
  std::vector<std::string> names;  ///< "-n", "--max-tokens"
  bool takes_value;
  std::string help;
};

/// The command's options; none for those of the second binary, whose help is asked instead.
std::vector<OptionFacts> OptionsOf(const Command& command) {
  std::vector<OptionFacts> options;
  if (command.set_up == nullptr) return options;
  CLI::App app;
  SetUp(command, app);
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) continue;
    OptionFacts facts = {{}, option->get_items_expected_min() > 0, option->get_description()};
    for (const std::string& name : option->get_snames()) facts.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) facts.names.push_back("--" + name);
    options.push_back(std::move(facts));
  }
  return options;
}

std::string CommandNames() {
  std::string names;
  for (const Command& command : Commands()) names += std::string(command.name) + " ";
  return names + "help";
}

/// Text within single quotes, for bash, zsh and fish alike.
std::string Quote(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

/// `script` with every `marker` replaced.
std::string Fill(std::string script, std::string_view marker, std::string_view text) {
  for (size_t at = script.find(marker); at != std::string::npos;
       at = script.find(marker, at + text.size())) {
    script.replace(at, marker.size(), text);
  }
  return script;
}

// In the scripts below @COMMANDS@ and the like are filled in. The options of commands of the second
// binary are read from its help when they are needed.
constexpr const char* kBash = R"SH(# bash completion for quern: source <(quern completion bash)
_quern() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
  local command=${COMP_WORDS[1]} options
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W '@COMMANDS@' -- "$current")
    return
  fi
  case "$command:$previous" in
    @VALUED@)
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return ;;
    completion:completion)
      mapfile -t COMPREPLY < <(compgen -W 'bash zsh fish' -- "$current")
      return ;;
  esac
  if [[ $current != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
    return
  fi
  case "$command" in
@CASES@    *) options=$(quern "$command" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*' | sort -u) ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}
complete -o filenames -F _quern quern
)SH";

constexpr const char* kZsh = R"SH(#compdef quern
# zsh completion for quern: put it as _quern into a folder of $fpath.
_quern() {
  local -a commands options
  commands=(
@COMMANDS@  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case "$command" in
@CASES@    *)
      options=(${(f)"$(quern "$command" --help 2>/dev/null | grep -oE -- '--[a-z][a-z-]*' | sort -u)"})
      _arguments $options '*:file:_files' ;;
  esac
}
if [ "$funcstack[1]" = _quern ]; then _quern "$@"; else compdef _quern quern; fi
)SH";

constexpr const char* kFish = R"SH(# fish completion for quern
set -l commands @COMMANDS@
@LINES@complete -c quern -f -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
)SH";

std::string Bash() {
  std::string cases, valued;
  for (const Command& command : Commands()) {
    std::string names;
    for (const OptionFacts& option : OptionsOf(command)) {
      for (const std::string& name : option.names) {
        names += (names.empty() ? "" : " ") + name;
        if (!option.takes_value) continue;
        valued += (valued.empty() ? "" : "|") + std::string(command.name) + ":" + name;
      }
    }
    if (!names.empty()) {
      cases += "    " + std::string(command.name) + ") options=" + Quote(names) + " ;;\n";
    }
  }
  return Fill(Fill(Fill(kBash, "@COMMANDS@", CommandNames()), "@VALUED@", valued), "@CASES@",
              cases);
}

/// `_arguments` reads these characters as its own syntax.
std::string ZshText(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

/// A branch of the case statement: `_arguments` with a specification for each option.
std::string ZshCase(const Command& command) {
  std::string text = "    " + std::string(command.name) + ")\n      _arguments";
  for (const OptionFacts& option : OptionsOf(command)) {
    for (const std::string& name : option.names) {
      text += " \\\n        " + Quote(name + "[" + ZshText(option.help) + "]" +
                                      (option.takes_value ? ":value:_files" : ""));
    }
  }
  const bool shells = std::string_view(command.name) == "completion";
  return text + " \\\n        " + (shells ? "'1:shell:(bash zsh fish)'" : "'*:file:_files'") +
         " ;;\n";
}

std::string Zsh() {
  std::string commands, cases;
  for (const Command& command : Commands()) {
    commands += "    " + Quote(ZshText(command.name) + ":" + ZshText(command.summary)) + "\n";
    if (command.set_up != nullptr) cases += ZshCase(command);
  }
  return Fill(Fill(kZsh, "@COMMANDS@", commands), "@CASES@", cases);
}

std::string Fish() {
  std::string lines;
  for (const Command& command : Commands()) {
    const std::string name = command.name;
    const std::string used = "complete -c quern -n '__fish_seen_subcommand_from " + name + "'";
    lines += "complete -c quern -f -n \"not __fish_seen_subcommand_from $commands\" -a " + name +
             " -d " + Quote(command.summary) + "\n";
    if (command.set_up == nullptr) {
      lines += used + " -a '(quern " + name +
               " --help 2>/dev/null | string match -ra -- \"--[a-z][a-z-]*\")'\n";
    }
    for (const OptionFacts& option : OptionsOf(command)) {
      lines += used;
      for (const std::string& each : option.names) {
        const bool is_long = each.starts_with("--");
        lines.append(is_long ? " -l " : " -s ").append(each, is_long ? 2 : 1);
      }
      lines.append(option.takes_value ? " -r -d " : " -d ").append(Quote(option.help)).append("\n");
    }
  }
  return Fill(Fill(kFish, "@COMMANDS@", CommandNames()), "@LINES@", lines);
}

}  // namespace

Action SetUpCompletion(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  app.add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->type_name("");
  return [shell] {
    WriteOutput(*shell == "bash" ? Bash() : *shell == "zsh" ? Zsh() : Fish());
    return QUERN_OK;
  };
}

}  // namespace quern::tools
