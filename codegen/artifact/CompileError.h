//===- CompileError.h - Errors with an exit code ----------------*- C++ -*-===//
//
// What the compiler reports to its user: one sentence and the exit code that
// goes with it (docs/commands.md). Travels as an llvm::Error.
//
//===----------------------------------------------------------------------===//
#ifndef QUERN_CODEGEN_ARTIFACT_COMPILEERROR_H
#define QUERN_CODEGEN_ARTIFACT_COMPILEERROR_H

#include "llvm/Support/Error.h"

#include <string>

namespace quern {

/// Exit codes of the compiler's commands.
enum class ExitCode : int {
  Ok = 0,
  Failure = 1,      ///< The work failed: an unwritable file, a full disk.
  Usage = 2,        ///< The command asks for something that has no meaning.
  Malformed = 3,    ///< The input breaks its own format.
  Unsupported = 4,  ///< Well formed, but Quern has no support for it.
  Incompatible = 5, ///< Sound, but made for another version or machine.
  OutOfMemory = 6,
};

/// An error with its exit code. `message` is one line without a final period:
/// what was seen, what was wanted, the remedy.
class CompileError : public llvm::ErrorInfo<CompileError> {
public:
  static char ID;

  CompileError(ExitCode code, std::string message)
      : exitCode(code), text(std::move(message)) {}

  ExitCode code() const { return exitCode; }
  std::string message() const override { return text; }

  void log(llvm::raw_ostream &os) const override;
  std::error_code convertToErrorCode() const override;

private:
  ExitCode exitCode;
  std::string text;
};

/// A CompileError as an llvm::Error.
llvm::Error compileError(ExitCode code, const llvm::Twine &message);

} // namespace quern

#endif // QUERN_CODEGEN_ARTIFACT_COMPILEERROR_H
