// The commands of `quern`, as a table.
#pragma once

#include <functional>
#include <span>
#include <string_view>

namespace CLI {
class App;
}

namespace quern::tools {

/// Runs a command whose options have been parsed; returns the exit code.
using Action = std::function<int()>;

struct Command {
  const char* name;
  const char* summary;   ///< One line of `quern --help`.
  const char* examples;  ///< Shown below the options of `quern NAME --help`.
  /// Declares the command's options and returns what it does. Null: the command lives in the second
  /// binary, quern-compile.
  Action (*set_up)(CLI::App& app);
};

/// In the order of `quern --help`.
std::span<const Command> Commands();
/// Null when there is none of that name.
const Command* FindCommand(std::string_view name);

/// Names the application, adds its help flag, and lets `command` declare its options on it.
Action SetUp(const Command& command, CLI::App& app);

Action SetUpRun(CLI::App& app);
Action SetUpChat(CLI::App& app);
Action SetUpInspect(CLI::App& app);
Action SetUpVerify(CLI::App& app);
Action SetUpEval(CLI::App& app);
Action SetUpTokenize(CLI::App& app);
Action SetUpBench(CLI::App& app);
Action SetUpEmulate(CLI::App& app);
Action SetUpDoctor(CLI::App& app);
Action SetUpCompletion(CLI::App& app);
Action SetUpVersion(CLI::App& app);

}  // namespace quern::tools
