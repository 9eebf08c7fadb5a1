// The command line `quern`: picks the command, parses its options, turns errors into exit codes.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "runtime/tools/command.h"
#include "runtime/tools/error.h"
#include "runtime/tools/help.h"
#include "runtime/tools/machine.h"
#include "runtime/tools/output.h"
#include "runtime/tools/signals.h"
#include "runtime/tools/suggest.h"

namespace quern::tools {
namespace {

/// Becomes quern-compile with the same arguments.
[[noreturn]] void RunCompiler(const Command& command, char** argv) {
  const std::string compiler = FindCompiler();
  if (compiler.empty()) {
    throw CommandError(
        QUERN_UNSUPPORTED,
        std::string("this installation has no compiler: quern-compile is neither "
                    "beside quern nor in ../libexec/quern; install it to use 'quern ") +
            command.name + "'");
  }
  execv(compiler.c_str(), argv);
  throw CommandError(QUERN_FAILURE, "cannot run '" + compiler + "': " + std::strerror(errno));
}

/// What stands between the error and the reference to the help.
std::string Meant(const std::string& suggestion) {
  return suggestion.empty() ? "; " : "; did you mean '" + suggestion + "'? Otherwise ";
}

/// "'--tmp' is no option; did you mean '--temp'? Otherwise " for the first argument nobody wanted.
std::string DescribeExtra(const CLI::App& app) {
  const std::vector<std::string> extras = app.remaining();
  const std::string extra = extras.empty() ? "" : extras.front();
  const std::string name = extra.substr(0, extra.find('='));
  if (!name.starts_with("-")) return "unexpected argument '" + extra + "'; ";
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& each : option->get_lnames()) known.push_back("--" + each);
  }
  const std::string meant = Suggest(name, known);
  return "'" + name + "' is no option" + Meant(meant);
}

/// Parses the arguments behind the command's name. True: help was asked for and printed.
bool Parse(CLI::App& app, const Command& command, int argc, char** argv) {
  // CLI11 takes arguments in reverse order.
  std::vector<std::string> arguments(argv + 2, argv + argc);
  std::reverse(arguments.begin(), arguments.end());
  std::string reason;
  try {
    app.parse(arguments);
    return false;
  } catch (const CLI::CallForHelp&) {
    WriteOutput(app.help());
    return true;
  } catch (const CLI::ParseError& error) {
    // A misspelt name first: what is missing may follow from it.
    reason = app.remaining_size() > 0 ? DescribeExtra(app) : std::string(error.what()) + "; ";
  }
  throw CommandError(QUERN_USAGE, reason + "see 'quern " + command.name + " --help'");
}

int RunCommand(int argc, char** argv) {
  if (argc < 2) throw CommandError(QUERN_USAGE, "wanted a command; see 'quern --help'");
  const std::string_view name = argv[1];
  if (name == "--help" || name == "-h" || name == "help") {
    WriteOutput(GeneralHelp());
    return QUERN_OK;
  }
  const Command* command = FindCommand(name == "--version" ? "version" : name);
  if (command == nullptr) {
    std::vector<std::string> known;
    for (const Command& each : Commands()) known.push_back(each.name);
    const std::string meant = Suggest(name, known);
    throw CommandError(QUERN_USAGE, "'" + std::string(name) + "' is no command" + Meant(meant) +
                                        "see 'quern --help'");
  }
  if (command->set_up == nullptr) RunCompiler(*command, argv);
  CLI::App app;
  const Action action = SetUp(*command, app);
  return Parse(app, *command, argc, argv) ? QUERN_OK : action();
}

/// The name to print before errors: only that of a command.
std::string_view CommandName(int argc, char** argv) {
  return argc > 1 && FindCommand(argv[1]) ? argv[1] : "";
}

bool WantsJson(int argc, char** argv) {
  return std::any_of(argv + std::min(argc, 1), argv + argc,
                     [](const char* argument) { return std::strcmp(argument, "--json") == 0; });
}

/// Destructors of JSON trees may need memory, and an exception from one ends up here.
[[noreturn]] void OnTerminate() {
  try {
    if (const std::exception_ptr error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    constexpr char kLine[] = "quern: error: out of memory; close other programs\n";
    (void)!write(STDERR_FILENO, kLine, sizeof(kLine) - 1);
    _exit(QUERN_OUT_OF_MEMORY);
  } catch (...) {
  }
  std::abort();
}

int Main(int argc, char** argv) {
  std::set_terminate(OnTerminate);
  InstallSignalHandlers();
  const auto fail = [&](int code, std::string_view message) {
    WriteError(CommandName(argc, argv), code, message, WantsJson(argc, argv));
    return code;
  };
  if (quern_api_version() != QUERN_API_VERSION) {
    return fail(QUERN_INCOMPATIBLE, "libquern has interface version " +
                                        std::to_string(quern_api_version()) + ", wanted " +
                                        std::to_string(QUERN_API_VERSION) +
                                        "; install quern and libquern of one release");
  }
  try {
    const int code = RunCommand(argc, argv);
    RequireMappings();
    return code == QUERN_CANCELLED && SignalSeen() ? 128 + SignalSeen() : code;
  } catch (const CommandError& error) {
    if (error.code() == QUERN_CANCELLED && SignalSeen()) return 128 + SignalSeen();
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(QUERN_OUT_OF_MEMORY, "out of memory; close other programs or use --ctx-size");
  } catch (const std::exception& error) {
    return fail(QUERN_FAILURE, error.what());
  }
}

}  // namespace
}  // namespace quern::tools

int main(int argc, char** argv) { return quern::tools::Main(argc, argv); }
