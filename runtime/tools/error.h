// How a command fails: an exit code and one line.
#pragma once

#include <span>
#include <stdexcept>
#include <string>

#include "quern.h"

namespace quern::tools {

/// Ends a command. Thrown anywhere below main, which prints the line and exits with the code.
class CommandError : public std::runtime_error {
 public:
  CommandError(int code, const std::string& message) : std::runtime_error(message), code_(code) {}
  /// An exit code; see ExitCodes().
  int code() const { return code_; }

 private:
  int code_;
};

/// A row of the table of exit codes in `quern --help` and docs/commands.md.
struct ExitCode {
  int code;
  const char* kind;  ///< What `--json` calls it.
  const char* meaning;
};
std::span<const ExitCode> ExitCodes();

/// The kind of an exit code, such as "malformed".
const char* ExitKind(int code);

/// Throws unless `code` is QUERN_OK.
inline void Check(quern_status_code code, const quern_error& error) {
  if (code != QUERN_OK) throw CommandError(code, error.message);
}

}  // namespace quern::tools
